from decimal import Decimal

import pytest

from sentiment.text import canonicalize_group, canonicalize_number, canonicalize_text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1", "1"),
        ("1.0", "1"),
        ("1.00", "1"),
        ("10", "10"),
        ("100.0", "100"),
        ("-1.0", "-1"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("0.50", "0.5"),
        ("9007199254740993.0", "9007199254740993"),
    ],
)
def test_plain_numeral_has_the_text_of_its_value(text: str, canonical: str) -> None:
    assert canonicalize_text(text) == canonical


@pytest.mark.parametrize(
    "text",
    ["007", "00.5", "1e3", "1E3", "+1", ".5", "1.", "1.0.0", "1,0", "tt0101829", "0x1", "", " 1", "\u0661"],
)
def test_identifier_stays_as_it_is(text: str) -> None:
    assert canonicalize_text(text) == text


@pytest.mark.parametrize(
    ("number", "canonical"),
    [
        (1, "1"),
        (1.0, "1"),
        (Decimal("1.00"), "1"),
        (Decimal("1e3"), "1000"),
        (1e22, "1" + "0" * 22),
        (0.1, "0.1"),
        (-0.0, "0"),
        (True, "true"),
        (False, "false"),
        (Decimal("1e999999999"), "1E+999999999"),
        (float("inf"), "Infinity"),
    ],
)
def test_number_has_one_text(number: int | float | Decimal, canonical: str) -> None:
    assert canonicalize_number(number) == canonical


@pytest.mark.parametrize(
    ("text", "group"), [(None, None), ("", None), (" \t\u00a0", None), (" tt1 ", "tt1"), (" 1.0", "1")]
)
def test_group_without_a_name_is_none(text: str | None, group: str | None) -> None:
    assert canonicalize_group(text) == group
