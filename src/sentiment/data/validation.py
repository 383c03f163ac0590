"""Validation of rows, of the columns of a file, and of the whole data set."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray
from pandera.errors import SchemaErrors

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.params.data import ReviewChecks
from sentiment.params.sources import Columns

MAX_EXAMPLES = 10
"""Maximum number of invalid rows that an error message lists."""


class Quarantine:
    """CSV file of invalid rows with the columns source, row, reason and text."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(["source", "row", "reason", "text"])
        self.rows = 0
        self._examples: list[str] = []

    def add(self, source: str, row: str, reason: str, text: str) -> None:
        """Write an invalid row."""
        self.rows += 1
        self._writer.writerow([source, row, reason, text])
        if self.rows <= MAX_EXAMPLES:
            self._examples.append(f"{source}: {row}: {reason}")

    def raise_if_any(self) -> None:
        """Raise UserError with examples if there are invalid rows."""
        if self.rows:
            message = (
                f"reviews: {self.rows} invalid row(s); correct them, or set download.checks.bad_rows: "
                "quarantine"
            )
            raise UserError("\n  ".join([message, *self._examples]))


@contextmanager
def open_quarantine(path: Path) -> Iterator[Quarantine]:
    """Open a quarantine file for writing. It is moved to `path` only if the block succeeds."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield Quarantine(file)


_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
"""Control characters other than whitespace, and the replacement character for undecodable bytes."""


@dataclass(frozen=True)
class InvalidRow:
    """An invalid row: its position in the batch, and all rules that it violates."""

    position: int
    reason: str


class RowValidator:
    """Validates normalized reviews against a pandera schema."""

    def __init__(self, params: ReviewChecks) -> None:
        self._schema = pa.DataFrameSchema(
            {
                "text": pa.Column(
                    str,
                    [
                        _build_check(lambda text: text.str.len() > 0, "no text"),
                        _build_check(
                            lambda text: (text.str.len() == 0) | (text.str.len() >= params.min_characters),
                            f"shorter than {params.min_characters} characters",
                        ),
                        _build_check(
                            lambda text: text.str.len() <= params.max_characters,
                            f"longer than {params.max_characters} characters",
                        ),
                        _build_check(
                            lambda text: text.map(_compute_control_fraction) <= params.control_share,
                            f"more than {params.control_share:.1%} control or undecodable characters",
                        ),
                    ],
                ),
                "label": pa.Column(
                    "Int8",
                    _build_check(lambda label: label.isin([0, 1]), "label is not 0 or 1"),
                    nullable=True,
                ),
            }
        )

    def find_invalid(self, reviews: pd.DataFrame) -> Iterator[InvalidRow]:
        """Yield the invalid rows in order.

        Args:
            reviews: table with the columns text (str) and label (Int8), and any index.
        """
        try:
            self._schema.validate(reviews.reset_index(drop=True), lazy=True)
        except SchemaErrors as error:
            cases = error.failure_cases
            reasons_by_row = cases.groupby(cases["index"].astype(int), sort=True)["check"]
            for position, reasons in reasons_by_row:
                yield InvalidRow(int(str(position)), ", ".join(reasons))


def _build_check(condition: Callable[["pd.Series[Any]"], "pd.Series[bool]"], reason: str) -> pa.Check:
    return pa.Check(condition, name=reason, error=reason)


def _compute_control_fraction(text: str) -> float:
    return len(_CONTROL.findall(text)) / max(1, len(text))


def require_few_duplicates(
    rate: float, list_examples: Callable[[], Sequence[str]], checks: ReviewChecks
) -> None:
    """Raise UserError with examples if the fraction of dropped duplicates exceeds the limit."""
    if rate > checks.duplicates:
        message = (
            f"reviews: {rate:.1%} are duplicates, more than download.checks.duplicates "
            f"({checks.duplicates:.1%}); for example:"
        )
        examples = (f"{row}: its text also occurs in another row" for row in list_examples())
        raise UserError("\n  ".join([message, *examples]))


def require_balanced_labels(labels_by_split: Mapping[str, NDArray[np.int8]], checks: ReviewChecks) -> None:
    """Raise UserError if a labelled split lacks a label, or if its imbalance exceeds the limit."""
    for split, labels in labels_by_split.items():
        classes = np.unique(labels)
        if classes.tolist() != [0, 1]:
            raise UserError(
                f"reviews: the {split} split has {len(labels)} review(s) with labels {classes.tolist()}, but "
                "needs both 0 and 1; add reviews or change download.split"
            )
        positive = float(labels.mean())
        if abs(positive - 0.5) > checks.imbalance:
            raise UserError(
                f"reviews: {positive:.1%} of the {split} split are positive, which differs from 50% by more "
                f"than download.checks.imbalance ({checks.imbalance:.1%})"
            )


def summarize_split(words: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[str, Any]:
    """Return the number of reviews in a split, the fraction of positive reviews, and length statistics.

    Args:
        words: number of words, separated by whitespace, of each review, shape (reviews,).
        labels: labels, 0 or 1, or any other value for no label, shape (reviews,).
    """
    if not len(words):
        return {"reviews": 0}
    labelled = labels[(labels == 0) | (labels == 1)]
    balance = {"positive_fraction": round(float(labelled.mean()), 6)} if len(labelled) else {}
    return {
        "reviews": len(words),
        **balance,
        "words": {
            "mean": round(float(words.mean()), 2),
            "median": float(np.median(words)),
            "p95": float(np.percentile(words, 95)),
            "max": int(words.max()),
        },
    }


Cells = tuple[list[str | None], list[str | None], list[str | None]]
"""Texts, labels and groups of some rows; labels and groups are canonical texts."""

CHARACTERS_PER_BATCH = 1 << 25
"""Maximum characters of a batch, for very long texts. A batch of real reviews has 3 million."""

MAX_EXCERPT_CHARACTERS = 200
"""Maximum characters of a file that a message quotes, because its first line may be very long."""


def list_columns(columns: Columns) -> list[str]:
    """Return the distinct names of the columns to read."""
    names = (columns.text, columns.label, columns.group)
    return list(dict.fromkeys(name for name in names if name is not None))


def require_columns(where: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise UserError if a wanted column is missing or not unique."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{where}: no column {', '.join(missing)}; columns found: {shorten(', '.join(found))}"
        )
    duplicate = [name for name in wanted if found.count(name) > 1]
    if duplicate:
        raise UserError(
            f"{where}: more than one column {', '.join(duplicate)}; "
            f"columns found: {shorten(', '.join(found))}"
        )


def map_label(label: str | None, row: str, labels: Mapping[str, int | None]) -> int | None:
    """Return 0 or 1 for the canonical text of a label, or None if its row is to be dropped.

    Args:
        label: canonical text; None if the cell is empty.
        row: location of the row, for messages.
        labels: the source's mapping of labels.

    Raises:
        UserError: there is no label, or it is not in the mapping.
    """
    if label is None:
        raise UserError(f"{row}: no label")
    if label not in labels:
        raise UserError(
            f"{row}: label {shorten(label)!r} is not one of the keys of labels: {', '.join(labels)}"
        )
    return labels[label]


def shorten(text: str) -> str:
    """Return the beginning of a text from a file without unprintable characters, for a message."""
    first = text.partition("\n")[0][:MAX_EXCERPT_CHARACTERS]
    return "".join(character if character.isprintable() else "\ufffd" for character in first)
