"""Reviews worth reading: the most confident errors of a model, and training labels that look wrong."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.files import atomic_write

LISTED_REVIEWS = 20
"""Number of reviews in each list of the report."""

EXCERPT_CHARACTERS = 200
"""Maximum number of characters of an excerpt, before characters are escaped."""

LABEL_NAMES = {0: "negative", 1: "positive"}

_MARKDOWN_CHARACTERS = re.compile(r"([!-/:-@\[-`{-~])")
"""ASCII punctuation; GitHub's Markdown lets a backslash escape each of these characters."""

_HARMLESS = set(".,;:!?'\"()-/%")
"""Punctuation that starts no Markdown syntax within a line, and would only be harder to read if escaped."""


@dataclass(frozen=True)
class ReviewToRead:
    """A review whose prediction contradicts its label.

    Attributes:
        label: its label, 0 or 1.
        probability: predicted probability that it is positive.
        source: name of its source.
        row: location of the row in the source.
        text: the review.
    """

    label: int
    probability: float
    source: str
    row: str
    text: str


@dataclass(frozen=True)
class LabelIssues:
    """Reviews whose labels look wrong, by confident learning.

    Attributes:
        rows: their rows, the most likely error first, shape (n_issues,).
        thresholds: mean predicted probability of each label among the reviews with that label, shape (2,).
    """

    rows: NDArray[np.int64]
    thresholds: NDArray[np.float64]


def find_confident_errors(
    labels: NDArray[np.int8],
    probabilities: NDArray[np.float64],
    threshold: float = 0.5,
    count: int = LISTED_REVIEWS,
) -> NDArray[np.int64]:
    """Return the rows of the wrong predictions, the most confident first.

    Args:
        labels: labels, 0 or 1, shape (n_reviews,).
        probabilities: predicted probability that each review is positive, shape (n_reviews,).
        threshold: lowest probability at which a review is predicted positive.
        count: maximum number of rows.
    """
    errors = np.flatnonzero((probabilities >= threshold) != (labels == 1))
    label_probabilities = np.abs(probabilities[errors] - (1 - labels[errors]))  # low: a confident error
    return errors[np.argsort(label_probabilities, kind="stable")][:count]


def find_label_issues(labels: NDArray[np.int8], probabilities: NDArray[np.float64]) -> LabelIssues:
    """Find labels that look wrong by confident learning (Northcutt, Jiang and Chuang, 2021).

    A label looks wrong if the other label is the confident one: its probability is at least the mean
    probability of that label among the reviews that have it, and the given label is not confident or less
    probable. These are the off-diagonal entries of the paper's confident joint. They are ranked by the
    normalized margin, the probability of the given label minus that of the other label.

    Args:
        labels: labels, 0 or 1, shape (n_reviews,).
        probabilities: probability that each review is positive, predicted out of fold, shape (n_reviews,).

    Raises:
        ValueError: a label has no review.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("confident learning needs reviews of both labels")
    by_label = np.column_stack([1 - probabilities, probabilities])
    thresholds = np.array([by_label[labels == label, label].mean() for label in (0, 1)])
    rows = np.arange(len(labels))
    confident = np.where(by_label >= thresholds, by_label, -1.0)
    given, other = confident[rows, labels], confident[rows, 1 - labels]
    issues = np.flatnonzero((other >= 0) & (other > given))
    margins = by_label[issues, labels[issues]] - by_label[issues, 1 - labels[issues]]
    return LabelIssues(issues[np.argsort(margins, kind="stable")], thresholds)


def take_reviews(
    reviews: pa.Table, probabilities: NDArray[np.float64], rows: NDArray[np.int64]
) -> list[ReviewToRead]:
    """Return reviews of a split with their probabilities, in the order of `rows`.

    Args:
        reviews: reviews of the split, with the columns `text`, `label`, `source` and `row`.
        probabilities: probability that each review of the split is positive, shape (n_reviews,).
        rows: rows of the reviews to return.
    """
    taken = reviews.select(["text", "label", "source", "row"]).take(pa.array(rows)).to_pylist()
    return [
        ReviewToRead(probability=float(probability), **review)
        for review, probability in zip(taken, probabilities[rows], strict=True)
    ]


def write_errors_report(
    path: Path,
    confident_errors: Sequence[ReviewToRead],
    label_issues: Sequence[ReviewToRead],
    *,
    errors: int,
    issues: int,
) -> None:
    """Write `reports/errors.md`, with one table per list. Equal inputs produce equal files.

    Args:
        path: path of the Markdown file.
        confident_errors: the most confident errors on the validation split.
        label_issues: the training reviews whose labels look wrongest.
        errors: number of all errors on the validation split.
        issues: number of all training reviews whose labels look wrong.
    """
    sections: Mapping[str, tuple[str, Sequence[ReviewToRead]]] = {
        "Confident errors": (
            f"The selected model is wrong on {errors:,} validation reviews. It was most confident of these "
            f"{len(confident_errors)}.",
            confident_errors,
        ),
        "Labels that look wrong": (
            f"By confident learning, {issues:,} training labels look wrong to the linear reference, which "
            f"was trained without the fold of the review. These {len(label_issues)} look wrongest. Some are "
            "correct labels of unusual reviews: read the whole review before you change a label.",
            label_issues,
        ),
    }
    parts = ["# Errors to read", "*Probability* is that of a positive review."]
    for title, (introduction, listed) in sections.items():
        parts += [f"## {title}", introduction, _format_table(listed) if listed else "None."]
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _format_table(reviews: Sequence[ReviewToRead]) -> str:
    lines = ["| label | probability | source | row | review |", "| --- | --- | --- | --- | --- |"]
    for review in reviews:
        cells = (
            LABEL_NAMES[review.label],
            f"{review.probability:.4f}",
            escape_markdown(review.source),
            escape_markdown(review.row),
            escape_markdown(shorten(review.text)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shorten(text: str) -> str:
    """Return the start of a text on one line, with at most `EXCERPT_CHARACTERS` printable characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1].rstrip() + "\u2026"


def escape_markdown(text: str) -> str:
    """Escape the characters that could start Markdown or HTML syntax, or end the cell of a table."""
    return _MARKDOWN_CHARACTERS.sub(
        lambda match: match[1] if match[1] in _HARMLESS else f"\\{match[1]}", text
    )
