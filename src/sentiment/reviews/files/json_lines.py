"""JSON Lines: an object a line, by RFC 8259 and no more."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, NoReturn

from sentiment.canonical import canonical_group, canonical_number, canonical_text
from sentiment.errors import UserError
from sentiment.params.data import Columns
from sentiment.reviews.files.columns import (
    CHARACTERS_PER_BATCH,
    Cells,
    require_columns,
    wanted_columns,
)
from sentiment.reviews.rows import ROWS_PER_BATCH

LONGEST_LINE = 1 << 24
"""Bytes of a line, all columns and escapes included."""

_BYTE_ORDER_MARK = "\ufeff"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON can write and UTF-8 cannot: a post that was cut off in mid emoji."""


def json_rows(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Cells]:
    """Yield the rows of a file of one object a line; blank lines are skipped.

    Raises UserError, with the line, where it is not JSON or no object, has a key twice or no wanted column,
    or where a text is no string, a label or group no string, number or truth value. Null stands for none.
    """
    wanted = wanted_columns(columns)
    texts: list[str | None] = []
    labels: list[str | None] = []
    groups: list[str | None] = []
    characters = 0
    for row, (line, values) in enumerate(_objects(stream, name), start=1):
        where = f"{name} row {row}, line {line}"
        if any(column not in values for column in wanted):
            require_columns(f"{name}, line {line}", wanted, list(values))
        text = _text(values[columns.text], where)
        texts.append(text)
        labels.append(_scalar(values[columns.label], where, "label"))
        group = None if columns.group is None else _scalar(values[columns.group], where, "group")
        groups.append(canonical_group(group))
        characters += len(text or "")
        if len(texts) == ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield texts, labels, groups
            texts, labels, groups, characters = [], [], [], 0
    if texts:
        yield texts, labels, groups


def _objects(stream: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line that is not blank, and the object in it."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=Decimal
    )
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(line) > LONGEST_LINE:
            raise UserError(f"{where}: more than {LONGEST_LINE:,} bytes, too long for a review")
        try:
            content = line.decode()
            if number == 1:
                content = content.removeprefix(_BYTE_ORDER_MARK)
            if not content.strip():
                continue
            values = decoder.decode(content)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason})") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # also a number of thousands of digits, brackets in heaps
            raise UserError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(values, dict):
            found = content[:40]
            raise UserError(f"{where}: expected an object with the columns, found {found!r}")
        yield number, values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double!r} stands in one object twice")
    return values


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else _LONE_SURROGATE.sub("\ufffd", value)
    raise UserError(f"{where}: the text is {_type_of(value)}, expected a string")


def _scalar(value: Any, where: str, what: str) -> str | None:
    """Return the canonical text of a label or group."""
    if value is None:
        return None
    if isinstance(value, str):
        return canonical_text(_LONE_SURROGATE.sub("\ufffd", value))
    if isinstance(value, bool | int | Decimal):
        return canonical_number(value)
    raise UserError(f"{where}: the {what} is {_type_of(value)}, expected a string, a number or a boolean")


def _type_of(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return "a boolean" if isinstance(value, bool) else "a number"
