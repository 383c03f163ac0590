import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sentiment.data.validation import MAX_EXAMPLES, RowValidator, open_quarantine
from sentiment.errors import UserError
from sentiment.params.data import ReviewChecks

LIMITS = ReviewChecks(
    bad_rows="stop",
    min_characters=3,
    max_characters=20,
    control_share=0.1,
    duplicates=0.05,
    near_duplicates=None,
    imbalance=0.2,
)


def reasons(texts: list[str], labels: list[Any] | None = None) -> dict[int, str]:
    columns = {"text": pd.Series(texts, dtype="str"), "label": pd.array(labels or [1] * len(texts), "Int8")}
    table = pd.DataFrame(columns).set_axis(range(7, 7 + len(texts)))  # a batch is not always numbered from 0
    return {invalid.position: invalid.reason for invalid in RowValidator(LIMITS).find_invalid(table)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no text"),
        ("ab", "shorter than 3 characters"),
        ("a" * 21, "longer than 20 characters"),
        ("good\x00\x01film", "more than 10.0% control or undecodable characters"),
        ("caf\ufffd cr\ufffdme", "more than 10.0% control or undecodable characters"),
        ("\x7f" * 21, "longer than 20 characters, more than 10.0% control or undecodable characters"),
    ],
)
def test_invalid_text_is_found_with_every_reason(text: str, reason: str) -> None:
    assert reasons(["A fine film", text, "A bad one"]) == {1: reason}


@pytest.mark.parametrize("text", ["abc", "a" * 20, "ten chars\x00", "Ä 映画 🎬 fine", "a\tb\nc"])
def test_text_at_the_limits_and_in_any_script_is_valid(text: str) -> None:
    assert reasons([text]) == {}


def test_label_other_than_0_and_1_is_invalid() -> None:
    assert reasons(["fine film"] * 4, [0, 1, 2, None]) == {2: "label is not 0 or 1"}


def test_empty_batch_is_valid() -> None:
    assert reasons([], []) == {}


def test_invalid_rows_are_in_the_order_of_the_rows() -> None:
    assert list(reasons(["", "fine film", "b", "", "a" * 21])) == [0, 2, 3, 4]


def test_quarantine_has_source_row_reason_and_text(tmp_path: Path) -> None:
    with open_quarantine(tmp_path / "q.csv") as quarantine:
        quarantine.add("mine", "a.csv row 3", "shorter than 3 characters", 'a,"')
        quarantine.add("mine", "a.csv row 9", "no text", "")
    with (tmp_path / "q.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["source", "row", "reason", "text"],
            ["mine", "a.csv row 3", "shorter than 3 characters", 'a,"'],
            ["mine", "a.csv row 9", "no text", ""],
        ]


def test_quarantine_without_rows_has_a_header_and_does_not_raise(tmp_path: Path) -> None:
    with open_quarantine(tmp_path / "q.csv") as quarantine:
        quarantine.raise_if_any()
    assert (tmp_path / "q.csv").read_text() == "source,row,reason,text\n"


def test_error_counts_all_rows_lists_ten_and_leaves_no_file(tmp_path: Path) -> None:
    def refuse() -> None:
        with open_quarantine(tmp_path / "q.csv") as quarantine:
            for row in range(25):
                quarantine.add("mine", f"row {row}", "no text", "")
            quarantine.raise_if_any()

    with pytest.raises(UserError, match=r"25 invalid row\(s\)") as caught:
        refuse()
    assert str(caught.value).count("mine: row ") == MAX_EXAMPLES == 10
    assert list(tmp_path.iterdir()) == []
