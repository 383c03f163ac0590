"""The lines of a text file, handed on one by one and kept for as long as the row that they make is read."""

import re
from collections.abc import Iterator
from typing import TextIO

from sentiment.errors import UserError

LONGEST_ROW = 4_000_000
"""Characters of a row, line breaks inside it included: it bounds the memory where a quote is never closed."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is not UTF-8 where the error handler is `surrogateescape`."""


class RowTooLongError(Exception):
    """The lines of one row have more than LONGEST_ROW characters."""


class Lines(Iterator[str]):
    """Yields lines, ends included, for a parser that takes just those of the row that it returns."""

    def __init__(self, stream: TextIO, name: str) -> None:
        """stream: opened with `newline=""` and `errors="surrogateescape"`."""
        self._stream = stream
        self._name = name
        self._count = 0
        self.of_row: list[str] = []
        """The lines of the row that is being read."""
        self._characters = 0

    def begin_row(self) -> None:
        """Let go of the last row's lines."""
        self.of_row.clear()
        self._characters = 0

    def where(self) -> str:
        """Return the numbers of the lines of the row, for a message."""
        lines = len(self.of_row)
        return f"line {self._count}" if lines < 2 else f"lines {self._count - lines + 1} to {self._count}"

    def __next__(self) -> str:
        """Return the next line.

        Raises RowTooLongError, and UserError where the line is not UTF-8.
        """
        line = self._stream.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self._count += 1
        self.of_row.append(line)
        self._characters += len(line)
        if self._characters > LONGEST_ROW:
            raise RowTooLongError
        if not line.isascii() and (found := _UNDECODABLE.search(line)):
            byte = ord(found[0]) - 0xDC00
            raise UserError(f"{self._name}, line {self._count}: not UTF-8 text (byte 0x{byte:02x})")
        return line
