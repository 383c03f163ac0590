"""Rows that no model should see, set aside with the reason."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sentiment.errors import UserError
from sentiment.outputs import replacing

NAMED_ROWS = 10
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
        if self.rows <= NAMED_ROWS:
            self._named.append(f"{source}: {row}: {reason}")

    def refuse_any(self) -> None:
        """Raise UserError that names the first rows, where there are any."""
        if self.rows:
            what = (
                f"reviews: {self.rows} unfit row(s); mend them, or set download.checks.bad_rows: quarantine"
            )
            raise UserError("\n  ".join([what, *self._named]))


@contextmanager
def quarantining(path: Path) -> Iterator[Quarantine]:
    """Write a quarantine file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield Quarantine(file)
