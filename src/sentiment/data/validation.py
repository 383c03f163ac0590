"""Validation of reviews: of each row, of a source's columns, and of the data set as a whole."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
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
from sentiment.files import replacing
from sentiment.params.data import Columns, ReviewChecks


def summarize_split(words: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[str, Any]:
    """Sum up one split: its reviews, the share of positive ones, and words per review.

    words: shape (reviews,), words of each, split at white space. labels: shape (reviews,), 0 or 1; anything
    else is no label.
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


MAX_EXAMPLES = 10
"""Offending rows that an error names."""


class Quarantine:
    """A CSV with the columns source, row, reason and text; only its header where every row is fit."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(["source", "row", "reason", "text"])
        self.rows = 0
        self._named: list[str] = []

    def add(self, source: str, row: str, reason: str, text: str) -> None:
        """Set a row aside."""
        self.rows += 1
        self._writer.writerow([source, row, reason, text])
        if self.rows <= MAX_EXAMPLES:
            self._named.append(f"{source}: {row}: {reason}")

    def raise_if_any(self) -> None:
        """Raise UserError that names the first rows, where there are any."""
        if self.rows:
            what = (
                f"reviews: {self.rows} unfit row(s); mend them, or set download.checks.bad_rows: quarantine"
            )
            raise UserError("\n  ".join([what, *self._named]))


@contextmanager
def open_quarantine(path: Path) -> Iterator[Quarantine]:
    """Write a quarantine file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield Quarantine(file)


_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
"""Control characters other than white space, and what stands where bytes could not be decoded."""


@dataclass(frozen=True)
class InvalidRow:
    """A row that fails, by its position in the batch, and every reason."""

    position: int
    reason: str


class RowValidator:
    """The schema that each review must fit, after its text was normalized."""

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
        """Yield the rows that fail, in order. reviews: columns text (str) and label (Int8), any index."""
        try:
            self._schema.validate(reviews.reset_index(drop=True), lazy=True)
        except SchemaErrors as error:
            cases = error.failure_cases
            by_row = cases.groupby(cases["index"].astype(int), sort=True)["check"]
            for position, reasons in by_row:
                yield InvalidRow(int(str(position)), ", ".join(reasons))


def _build_check(condition: Callable[["pd.Series[Any]"], "pd.Series[bool]"], reason: str) -> pa.Check:
    return pa.Check(condition, name=reason, error=reason)


def _compute_control_fraction(text: str) -> float:
    return len(_CONTROL.findall(text)) / max(1, len(text))


Cells = tuple[list[str | None], list[str | None], list[str | None]]
"""Texts, labels and groups of some rows; labels and groups in their canonical text."""

CHARACTERS_PER_BATCH = 1 << 25
"""A batch of real reviews has 3 million characters; one of huge texts ends here."""

MAX_EXCERPT_CHARACTERS = 200
"""Characters of a file that a message repeats: the first line of a page can be all of it."""


def list_columns(columns: Columns) -> list[str]:
    """Return the names of the columns to read, each once."""
    names = (columns.text, columns.label, columns.group)
    return list(dict.fromkeys(name for name in names if name is not None))


def require_columns(where: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise UserError where a wanted column is missing or there more than once."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{where}: no column {', '.join(missing)}; columns found: {shorten(', '.join(found))}"
        )
    double = [name for name in wanted if found.count(name) > 1]
    if double:
        raise UserError(
            f"{where}: more than one column {', '.join(double)}; columns found: {shorten(', '.join(found))}"
        )


def shorten(text: str) -> str:
    """Return the beginning of what a file says, fit for a terminal."""
    first = text.partition("\n")[0][:MAX_EXCERPT_CHARACTERS]
    return "".join(character if character.isprintable() else "\ufffd" for character in first)
