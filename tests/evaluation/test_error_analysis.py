"""Confident errors, and labels that look wrong: planted label errors in real reviews are found."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentiment.data.imdb import load_package_reviews
from sentiment.evaluation.error_analysis import (
    EXCERPT_CHARACTERS,
    ReviewToRead,
    escape_markdown,
    find_confident_errors,
    find_label_issues,
    shorten,
    take_reviews,
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


def test_errors_are_ranked_by_confidence_and_limited() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0], np.int8)
    probabilities = np.array([0.2, 0.9, 0.9, 0.1, 0.01, 0.5])
    assert find_confident_errors(labels, probabilities).tolist() == [4, 1, 0, 5]
    assert find_confident_errors(labels, probabilities, threshold=0.6).tolist() == [4, 1, 0]
    assert find_confident_errors(labels, probabilities, count=1).tolist() == [4]
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


def _table() -> pa.Table:
    texts = ["A | *bold*\nlie", "<script>alert(1)</script>", ""]
    return pa.table(
        {
            "text": texts,
            "label": pa.array([1, 0, 1], pa.int8()),
            "source": ["a|b", "c", "c"],
            "row": ["x.csv row 1", "x.csv row 2", "x.csv row 3"],
            "group": pa.array([None] * 3, pa.string()),
        }
    )


def test_report_has_a_row_per_review_and_equal_bytes(tmp_path: Path) -> None:
    listed = take_reviews(_table(), np.array([0.0012, 0.9, 0.3]), np.array([1, 0, 2]))
    assert listed[0] == ReviewToRead(0, 0.9, "c", "x.csv row 2", "<script>alert(1)</script>")
    for name in ("first.md", "second.md"):
        write_errors_report(tmp_path / "reports" / name, listed, listed[:1], errors=1234, issues=1)
    first, second = (tmp_path / "reports" / name for name in ("first.md", "second.md"))
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text(encoding="utf-8")
    assert r"| positive | 0.0012 | a\|b | x.csv row 1 | A \| \*bold\* lie |" in text
    assert "1,234 validation reviews" in text
    rows = [line for line in text.splitlines() if line.startswith(("| positive", "| negative"))]
    assert len(rows) == 4
    assert all(row.replace(r"\|", "").count("|") == 6 for row in rows)
    assert "<script>" not in text


def test_report_without_errors(tmp_path: Path) -> None:
    write_errors_report(tmp_path / "errors.md", [], [], errors=0, issues=0)
    assert (tmp_path / "errors.md").read_text(encoding="utf-8").count("None.") == 2
