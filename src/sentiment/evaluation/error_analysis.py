"""Reviews worth reading: the most confident errors of a model, and training labels that look wrong."""

import re
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
class LabelIssues:
    """Reviews whose labels look wrong, by confident learning.

    Attributes:
        rows: their indices, the most likely error first, shape (n_issues,).
        thresholds: mean predicted probability of each label among the reviews with that label, shape (2,).
    """

    rows: NDArray[np.int64]
    thresholds: NDArray[np.float64]


def find_confident_errors(
    labels: NDArray[np.int8], probabilities: NDArray[np.float64], threshold: float = 0.5
) -> NDArray[np.int64]:
    """Return the indices of the wrong predictions, the most confident first, shape (n_errors,).

    Args:
        labels: labels, 0 or 1, shape (n_reviews,).
        probabilities: predicted probability that each review is positive, shape (n_reviews,).
        threshold: lowest probability at which a review is predicted positive.
    """
    errors = np.flatnonzero((probabilities >= threshold) != (labels == 1))
    label_probabilities = np.abs(probabilities[errors] - (1 - labels[errors]))  # low: a confident error
    return errors[np.argsort(label_probabilities, kind="stable")]


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


def write_errors_report(
    path: Path,
    validation: pa.Table,
    validation_probabilities: NDArray[np.float64],
    threshold: float,
    training: pa.Table,
    training_probabilities: NDArray[np.float64],
) -> None:
    """Write the most confident errors and the most suspicious labels as Markdown tables.

    Equal inputs produce equal files.

    Args:
        path: path of the Markdown file.
        validation: validation split, with the columns `text`, `label`, `source` and `row`.
        validation_probabilities: probability by the selected model that each validation review is positive,
            shape (n_validation_reviews,).
        threshold: lowest probability at which the selected model predicts a positive review.
        training: training split, with the same columns.
        training_probabilities: probability by the linear reference that each training review is positive,
            predicted out of fold, shape (n_training_reviews,).

    Raises:
        ValueError: the training split has one label only.
    """
    errors = find_confident_errors(validation["label"].to_numpy(), validation_probabilities, threshold)
    issues = find_label_issues(training["label"].to_numpy(), training_probabilities).rows
    sections = [
        "# Errors to read",
        "*Probability* is the predicted probability that the review is positive.",
        "## Confident errors",
        f"The selected model is wrong on {len(errors):,} of {len(validation):,} validation reviews. The "
        "errors of which it was most confident:",
        _format_reviews(validation, validation_probabilities, errors),
        "## Labels that look wrong",
        f"{len(issues):,} of {len(training):,} training labels look wrong by confident learning, from "
        "predictions of the linear reference, trained without the fold of the review. Some are correct: read "
        "the whole review before you change its label. The most suspicious ones:",
        _format_reviews(training, training_probabilities, issues),
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _format_reviews(reviews: pa.Table, probabilities: NDArray[np.float64], rows: NDArray[np.int64]) -> str:
    """Return a table of the first `LISTED_REVIEWS` of some rows of a split."""
    if len(rows) == 0:
        return "None."
    listed = rows[:LISTED_REVIEWS]
    lines = ["| label | probability | source | row | review |", "| --- | --- | --- | --- | --- |"]
    taken = reviews.select(["text", "label", "source", "row"]).take(pa.array(listed)).to_pylist()
    for review, probability in zip(taken, probabilities[listed], strict=True):
        cells = (
            LABEL_NAMES[review["label"]],
            f"{probability:.4f}",
            *(escape_markdown(shorten(review[name])) for name in ("source", "row", "text")),
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
