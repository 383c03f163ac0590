"""Texts as they are kept: review text normalized, labels and groups in one canonical spelling."""

import re
from decimal import Decimal

_NUMERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")

_TRUTH_VALUES = {"True", "False", "TRUE", "FALSE"}
"""As pandas and spreadsheets write them; JSON and Parquet have `true` and `false`."""

MAX_EXPONENT = 40
"""Power of ten past which a number stays in scientific notation: 1e999999999 written out is a gigabyte."""


def canonicalize_text(text: str) -> str:
    """Return the text of a label or group: that of its value where it is a plain decimal numeral.

    `1`, `1.0` and `1.00` become `1`, because a column of integers with one empty cell is written as
    fractions. Everything else is an identifier and stays as it is: `007`, `1e3`, `+1`, `.5`.
    """
    if text in _TRUTH_VALUES:
        return text.lower()
    if not _NUMERAL.fullmatch(text):
        return text
    value = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if value == "-0" else value


def canonicalize_number(number: int | float | Decimal) -> str:
    """Return the text of a value that its format has as a number: a truth value as in JSON, 1e3 as `1000`."""
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, int):
        return str(number)
    exact = Decimal(repr(number)) if isinstance(number, float) else number
    if not exact.is_finite() or abs(exact.adjusted()) > MAX_EXPONENT:
        return str(exact)
    return canonicalize_text(format(exact, "f"))


def canonicalize_group(text: str | None) -> str | None:
    """Return the text of a group without white space around it; None, no group, where nothing is left."""
    return canonicalize_text(text.strip()) or None if text else None


_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def normalize_text(text: str) -> str:
    """Return text without HTML line breaks and with each run of white space as one space."""
    return " ".join(_LINE_BREAK.sub(" ", text).split())
