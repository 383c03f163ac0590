"""Parquet: texts that are strings, labels and groups of any type that has one text for each value."""

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from sentiment.canonical import canonical_group, canonical_number, canonical_text
from sentiment.errors import UserError
from sentiment.params.data import Columns
from sentiment.reviews.files.columns import Cells, require_columns, wanted_columns
from sentiment.reviews.rows import ROWS_PER_BATCH
from sentiment.reviews.storage import READ_BYTES

_BINARY = (types.is_binary, types.is_large_binary, types.is_binary_view)
_STRING = (types.is_string, types.is_large_string, types.is_string_view, *_BINARY, types.is_null)
_FRACTION = (types.is_floating, types.is_decimal)
_DATE = (types.is_date, types.is_time, types.is_timestamp)
_SCALAR = (*_STRING, *_FRACTION, *_DATE, types.is_integer, types.is_boolean)


def parquet_rows(path: Path, name: str, columns: Columns) -> Iterator[Cells]:
    """Yield the rows of a file, in part, however its row groups are cut.

    Raises UserError where a wanted column is missing or there twice, the texts are no strings, or the labels
    or groups are lists or other nested values.
    """
    wanted = wanted_columns(columns)
    # Reading ahead, Arrow's default, keeps all that was read of the file until its end.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        schema = file.schema_arrow
        require_columns(name, wanted, schema.names)
        _require_type(name, schema.field(columns.text), _STRING, "strings")
        for column in wanted[1:]:
            _require_type(name, schema.field(column), _SCALAR, "strings, numbers, booleans or dates")
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
            groups: list[str | None] = [None] * batch.num_rows
            if columns.group is not None:
                groups = [canonical_group(group) for group in _texts(batch[columns.group])]
            labels = [
                None if label is None else canonical_text(label) for label in _texts(batch[columns.label])
            ]
            yield _texts(batch[columns.text]), labels, groups


def _require_type(name: str, field: pa.Field, allowed: tuple[object, ...], expected: str) -> None:
    found = _value_type(field.type)
    if not any(is_type(found) for is_type in allowed):  # type: ignore[operator]
        raise UserError(f"{name}: the column {field.name} is of type {field.type}, expected {expected}")


def _value_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if types.is_dictionary(data_type) else data_type


def _texts(values: pa.Array) -> list[str | None]:
    """Return each value as text; numbers with a fraction or an exponent in their canonical text."""
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_float16(values.type):
        values = values.cast(pa.float32())
    if not any(is_fraction(values.type) for is_fraction in _FRACTION):
        texts: list[str | None] = values.cast(pa.large_string()).to_pylist()
        return texts
    # Arrow writes the shortest text that is the same number of its own type: 0.1 for a float32 of it too.
    return [None if text is None else _of_fraction(text) for text in values.cast(pa.string()).to_pylist()]


@lru_cache(maxsize=4096)
def _of_fraction(text: str) -> str | None:
    """Return the text of a number; None for what pandas writes where there is none."""
    number = Decimal(text)
    return None if number.is_nan() else canonical_number(number)
