"""Normalization of review texts, and the canonical text of labels and groups."""

import re
from decimal import Decimal

_DECIMAL_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")

_BOOLEANS = {"True", "False", "TRUE", "FALSE"}
"""Spellings of booleans in files of pandas and spreadsheets; JSON and Parquet use `true` and `false`."""

MAX_EXPONENT = 40
"""Numbers with a larger exponent stay in scientific notation: 1e999999999 has a billion digits."""


def canonicalize_text(text: str) -> str:
    """Return the canonical text of a label or group; equal decimal numbers have the same canonical text.

    `1`, `1.0` and `1.00` become `1`, because a column of integers with one empty cell is often written with
    decimals. All other texts are identifiers and are not changed: `007`, `1e3`, `+1`, `.5`.
    """
    if text in _BOOLEANS:
        return text.lower()
    if not _DECIMAL_NUMBER.fullmatch(text):
        return text
    value = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if value == "-0" else value


def canonicalize_number(number: int | float | Decimal) -> str:
    """Return the canonical text of a number or boolean: 1e3 becomes `1000`, True becomes `true`."""
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, int):
        return str(number)
    exact = Decimal(repr(number)) if isinstance(number, float) else number
    if not exact.is_finite() or abs(exact.adjusted()) > MAX_EXPONENT:
        return str(exact)
    return canonicalize_text(format(exact, "f"))


def canonicalize_group(text: str | None) -> str | None:
    """Return the canonical text of a group without surrounding whitespace, or None if it is empty."""
    return canonicalize_text(text.strip()) or None if text else None


_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def normalize_text(text: str) -> str:
    """Replace HTML line breaks and each sequence of whitespace by one space, and strip the text."""
    return " ".join(_LINE_BREAK.sub(" ", text).split())
