"""Confident errors, and labels that look wrong: planted label errors in real reviews are found."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentiment.data.imdb import load_package_reviews
from sentiment.evaluation.error_analysis import (
    EXCERPT_CHARACTERS,
    escape_markdown,
    find_confident_errors,
    find_label_issues,
    shorten,
    write_errors_report,
)
from sentiment.evaluation.reference import fit_reference


def test_most_of_the_top_label_issues_are_planted_errors() -> None:
    """2% of 5,000 labels are flipped; the others may be wrong too, but rarely."""
    reviews = load_package_reviews().take(pa.array(range(0, 25_000, 5)))
    labels = reviews["label"].to_numpy().copy()
    flipped = np.random.default_rng(3).choice(len(labels), 100, replace=False)
    labels[flipped] = 1 - labels[flipped]
    probabilities = fit_reference(reviews["text"].to_pylist(), labels).predict_out_of_fold(None)
    top = find_label_issues(labels, probabilities).rows[:20]
    assert len(np.intersect1d(top, flipped)) >= 14


def test_label_issues_equal_a_calculation_by_hand() -> None:
    """Thresholds: 0.625 for label 0, the mean of 0.9, 0.8, 0.2 and 0.6; and 0.55 for label 1."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int8)
    probabilities = np.array([0.1, 0.2, 0.8, 0.4, 0.9, 0.7, 0.5, 0.1])
    issues = find_label_issues(labels, probabilities)
    np.testing.assert_allclose(issues.thresholds, [0.625, 0.55])
    assert issues.rows.tolist() == [7, 2]  # margins -0.8 and -0.6; row 6 is confident of neither label


def test_an_error_below_the_threshold_of_the_other_label_is_no_label_issue() -> None:
    labels = np.array([0, 0, 1, 1], np.int8)
    probabilities = np.array([0.05, 0.55, 0.95, 0.9])
    assert find_confident_errors(labels, probabilities).tolist() == [1]
    assert find_label_issues(labels, probabilities).rows.tolist() == []


def test_one_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="both labels"):
        find_label_issues(np.ones(3, np.int8), np.full(3, 0.5))


def test_errors_are_ranked_by_confidence() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0], np.int8)
    probabilities = np.array([0.2, 0.9, 0.9, 0.1, 0.01, 0.5])
    assert find_confident_errors(labels, probabilities).tolist() == [4, 1, 0, 5]
    assert find_confident_errors(labels, probabilities, threshold=0.6).tolist() == [4, 1, 0]
    assert find_confident_errors(labels, labels.astype(float)).tolist() == []


def test_excerpts_are_short_lines() -> None:
    assert shorten("a\n\nb\tc\u202ed\x00") == "a b c d"
    assert shorten("x" * EXCERPT_CHARACTERS) == "x" * EXCERPT_CHARACTERS
    assert len(shorten("word " * 1000)) <= EXCERPT_CHARACTERS
    assert shorten("x" * 1000).endswith("\u2026")
    assert shorten("") == ""


def test_markdown_and_html_are_escaped() -> None:
    assert escape_markdown("<b>*a*</b> | `c` [d](e) \\") == r"\<b\>\*a\*\</b\> \| \`c\` \[d\](e) \\"
    assert escape_markdown("It's fine, isn't it?") == "It's fine, isn't it?"


def _table(texts: list[str], labels: list[int]) -> pa.Table:
    rows = [f"x.csv row {number}" for number in range(1, len(texts) + 1)]
    return pa.table(
        {"text": texts, "label": pa.array(labels, pa.int8()), "source": ["a|b"] * len(texts), "row": rows}
    )


def test_report_lists_both_kinds_of_errors(tmp_path: Path) -> None:
    validation = _table(["A | *bold*\nlie", "<script>alert(1)</script>", "fine", ""], [1, 0, 1, 0])
    training = _table(["wrong", "right", "right", "also wrong"], [1, 1, 0, 0])
    for name in ("first.md", "second.md"):
        write_errors_report(
            tmp_path / "reports" / name,
            validation,
            np.array([0.0012, 0.97, 0.62, 0.1]),
            0.6,
            training,
            np.array([0.01, 0.99, 0.01, 0.98]),
        )
    first, second = (tmp_path / "reports" / name for name in ("first.md", "second.md"))
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text(encoding="utf-8")
    errors, issues = text.split("## Labels that look wrong")
    assert "wrong on 2 of 4 validation reviews" in errors
    assert _rows(errors) == [
        r"| positive | 0.0012 | a\|b | x.csv row 1 | A \| \*bold\* lie |",
        r"| negative | 0.9700 | a\|b | x.csv row 2 | \<script\>alert(1)\</script\> |",
    ]
    assert "2 of 4 training labels look wrong" in issues
    assert [row.split(" | ")[-1] for row in _rows(issues)] == ["wrong |", "also wrong |"]


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("| positive", "| negative"))]


def test_report_lists_at_most_twenty_of_each(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], 100).astype(np.int8)
    probabilities = np.where(np.arange(200) % 4 == 0, 1 - labels, labels) * 0.9 + 0.05
    table = _table(["text"] * 200, labels.tolist())
    write_errors_report(tmp_path / "errors.md", table, probabilities, 0.5, table, probabilities)
    text = (tmp_path / "errors.md").read_text(encoding="utf-8")
    assert "wrong on 50 of 200" in text
    assert len(_rows(text)) == 40


def test_report_without_errors_and_of_one_label(tmp_path: Path) -> None:
    table, probabilities = _table(["bad", "good"], [0, 1]), np.array([0.1, 0.9])
    write_errors_report(tmp_path / "errors.md", table, probabilities, 0.5, table, probabilities)
    assert (tmp_path / "errors.md").read_text(encoding="utf-8").count("None.") == 2
    one_label = _table(["good", "better"], [1, 1])
    with pytest.raises(ValueError, match="both labels"):
        write_errors_report(tmp_path / "new.md", table, probabilities, 0.5, one_label, probabilities)
    assert not (tmp_path / "new.md").exists()
