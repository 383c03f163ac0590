"""Reviews from JSON Lines and Parquet files."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from sentiment.data.parquet import READ_BYTES, ROWS_PER_BATCH
from sentiment.data.validation import CHARACTERS_PER_BATCH, Cells, list_columns, require_columns
from sentiment.errors import UserError
from sentiment.params.sources import Columns
from sentiment.text import canonicalize_group, canonicalize_number, canonicalize_text

MAX_LINE_BYTES = 1 << 24
"""Maximum bytes of a line, including all columns and escapes."""

_BYTE_ORDER_MARK = "\ufeff"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Lone surrogate, for example of a truncated emoji. JSON can represent it, UTF-8 cannot."""


def read_json_rows(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Cells]:
    """Yield the rows of a JSON Lines file. Blank lines are skipped, and null is a missing value.

    Raises:
        UserError: a line is not a JSON object, has a duplicate key or lacks a column; a text is not a string;
            or a label or group is not a string, number or boolean. The message names the line.
    """
    wanted = list_columns(columns)
    texts: list[str | None] = []
    labels: list[str | None] = []
    groups: list[str | None] = []
    characters = 0
    for row, (line, values) in enumerate(_read_objects(stream, name), start=1):
        where = f"{name} row {row}, line {line}"
        if any(column not in values for column in wanted):
            require_columns(f"{name}, line {line}", wanted, list(values))
        text = _validate_text(values[columns.text], where)
        texts.append(text)
        labels.append(_to_canonical_scalar(values[columns.label], where, "label"))
        group = None if columns.group is None else _to_canonical_scalar(values[columns.group], where, "group")
        groups.append(canonicalize_group(group))
        characters += len(text or "")
        if len(texts) == ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield texts, labels, groups
            texts, labels, groups, characters = [], [], [], 0
    if texts:
        yield texts, labels, groups


def _read_objects(stream: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the JSON object of each line that is not blank."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_require_unique_keys, parse_constant=_raise_on_constant, parse_float=Decimal
    )
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{where}: more than {MAX_LINE_BYTES:,} bytes, too long for a review")
        try:
            content = line.decode()
            if number == 1:
                content = content.removeprefix(_BYTE_ORDER_MARK)
            if not content.strip():
                continue
            values = decoder.decode(content)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason})") from None
        except (ValueError, RecursionError) as error:  # also for huge numbers and deep nesting
            raise UserError(f"{where}: invalid JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(values, dict):
            found = content[:40]
            raise UserError(f"{where}: expected an object with the columns, found {found!r}")
        yield number, values


def _require_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {duplicate!r}")
    return values


def _raise_on_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _validate_text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else _LONE_SURROGATE.sub("\ufffd", value)
    raise UserError(f"{where}: expected text to be a string, found {_describe_type(value)}")


def _to_canonical_scalar(value: Any, where: str, what: str) -> str | None:
    """Return the canonical text of a label or group."""
    if value is None:
        return None
    if isinstance(value, str):
        return canonicalize_text(_LONE_SURROGATE.sub("\ufffd", value))
    if isinstance(value, bool | int | Decimal):
        return canonicalize_number(value)
    raise UserError(
        f"{where}: expected {what} to be a string, a number or a boolean, found {_describe_type(value)}"
    )


def _describe_type(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return "a boolean" if isinstance(value, bool) else "a number"


_BINARY = (types.is_binary, types.is_large_binary, types.is_binary_view)
_STRING = (types.is_string, types.is_large_string, types.is_string_view, *_BINARY, types.is_null)
_FRACTION = (types.is_floating, types.is_decimal)
_DATE = (types.is_date, types.is_time, types.is_timestamp)
_SCALAR = (*_STRING, *_FRACTION, *_DATE, types.is_integer, types.is_boolean)


def read_parquet_rows(path: Path, name: str, columns: Columns) -> Iterator[Cells]:
    """Yield the rows of a Parquet file in batches, independently of its row groups.

    Raises:
        UserError: a column is missing or not unique, the texts are not strings, or the labels or groups are
            lists or other nested values.
    """
    wanted = list_columns(columns)
    # With Arrow's default, reading ahead, everything read is held in memory until the end of the file.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        schema = file.schema_arrow
        require_columns(name, wanted, schema.names)
        _require_type(name, schema.field(columns.text), _STRING, "strings")
        for column in wanted[1:]:
            _require_type(name, schema.field(column), _SCALAR, "strings, numbers, booleans or dates")
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
            groups: list[str | None] = [None] * batch.num_rows
            if columns.group is not None:
                groups = [canonicalize_group(group) for group in _to_texts(batch[columns.group])]
            labels = [
                None if label is None else canonicalize_text(label)
                for label in _to_texts(batch[columns.label])
            ]
            yield _to_texts(batch[columns.text]), labels, groups


def _require_type(name: str, field: pa.Field, allowed: tuple[object, ...], expected: str) -> None:
    value_type = _get_value_type(field.type)
    if not any(is_type(value_type) for is_type in allowed):  # type: ignore[operator]
        raise UserError(f"{name}: the column {field.name} is of type {field.type}, expected {expected}")


def _get_value_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if types.is_dictionary(data_type) else data_type


def _to_texts(values: pa.Array) -> list[str | None]:
    """Convert the values to texts; those of floats and decimals are canonical."""
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_float16(values.type):
        values = values.cast(pa.float32())
    if not any(is_fraction(values.type) for is_fraction in _FRACTION):
        texts: list[str | None] = values.cast(pa.large_string()).to_pylist()
        return texts
    # Arrow formats a number as the shortest text that parses to the same number in its type, also float32.
    return [
        None if text is None else _canonicalize_fraction(text)
        for text in values.cast(pa.string()).to_pylist()
    ]


@lru_cache(maxsize=4096)
def _canonicalize_fraction(text: str) -> str | None:
    """Return the canonical text of a number, or None for NaN, which pandas writes for missing values."""
    number = Decimal(text)
    return None if number.is_nan() else canonicalize_number(number)
