"""CSV and TSV: strictly as RFC 4180 says, or as the source says that its fields are quoted.

Many files quote nothing, and some of their texts begin with a quote all the same. Read by RFC 4180, all up to
the next quote is one field then, and the rows in between are lost without an error. So where the source does
not say how fields are quoted, whatever could be such a file is refused, with the row.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn, TextIO

from sentiment.data.parquet import ROWS_PER_BATCH
from sentiment.data.validation import CHARACTERS_PER_BATCH, Cells, list_columns, require_columns, shorten
from sentiment.errors import UserError
from sentiment.params.data import FilesSource
from sentiment.text import canonicalize_group, canonicalize_text

MAX_ROW_CHARACTERS = 4_000_000
"""Characters of a row, line breaks inside it included: it bounds the memory where a quote is never closed."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is not UTF-8 where the error handler is `surrogateescape`."""


class RowTooLongError(Exception):
    """The lines of one row have more than MAX_ROW_CHARACTERS characters."""


class LineReader(Iterator[str]):
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
        line = self._stream.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self._count += 1
        self.of_row.append(line)
        self._characters += len(line)
        if self._characters > MAX_ROW_CHARACTERS:
            raise RowTooLongError
        if not line.isascii() and (found := _UNDECODABLE.search(line)):
            byte = ord(found[0]) - 0xDC00
            raise UserError(f"{self._name}, line {self._count}: not UTF-8 text (byte 0x{byte:02x})")
        return line


DEFAULT_QUOTE = '"'
QUOTING_HINT = "where quotes are ordinary characters, set quoting: none"
ESCAPE_HINT = "where quotes inside a field are written \\\", set escape_character: '\\'"


def read_delimited_rows(stream: BinaryIO, name: str, source: FilesSource, delimiter: str) -> Iterator[Cells]:
    """Yield the rows of a file with a header.

    Raises UserError, with row and line, where a row has not as many fields as the header, a quote is not
    closed, text stands behind a closing quote, a row is longer than any review, or bytes are not UTF-8; and,
    where the source does not set `quoting`, where line breaks inside a field could be the ends of rows.
    """
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # of the whole process; `Lines` stops before
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    table = _TableReader(LineReader(text, name), name, source, delimiter)
    columns = source.columns
    text_at, label_at = table.header.index(columns.text), table.header.index(columns.label)
    group_at = None if columns.group is None else table.header.index(columns.group)
    texts: list[str | None] = []
    labels: list[str | None] = []
    groups: list[str | None] = []
    characters = 0
    for fields in table.rows():
        texts.append(fields[text_at])
        labels.append(canonicalize_text(fields[label_at]))
        groups.append(None if group_at is None else canonicalize_group(fields[group_at]))
        characters += len(fields[text_at])
        if len(texts) == ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield texts, labels, groups
            texts, labels, groups, characters = [], [], [], 0
    if texts:
        yield texts, labels, groups


class _TableReader:
    """The rows behind a header, each checked against it."""

    def __init__(self, lines: LineReader, name: str, source: FilesSource, delimiter: str) -> None:
        self._lines = lines
        self._name = name
        self._source = source
        self._delimiter = delimiter
        self._quote = None if source.quoting == "none" else source.quote_character or DEFAULT_QUOTE
        self._reader = csv.reader(lines, **self._dialect())
        self._row = 0
        """Number of the row being read, blank lines not counted; 0 is the header."""
        header = self._next()
        if header is None:
            raise UserError(f"{name}: empty, no header in it")
        if "\0" in "".join(header):
            raise UserError(f"{name}: not UTF-8 text: zero bytes in the header; save it as UTF-8")
        require_columns(name, list_columns(source.columns), header)
        self.header = header

    def rows(self) -> Iterator[list[str]]:
        """Yield the fields of each row."""
        width = len(self.header)
        self._row = 1
        while (fields := self._next()) is not None:
            if len(fields) != width:
                hint = f"; {QUOTING_HINT}" if self._may_quote_nothing() else ""
                self._refuse(f"{len(fields)} field(s), where the header has {width}{hint}")
            if len(self._lines.of_row) > 1 and self._source.quoting is None:
                self._refuse_rows_in_a_field()
            yield fields
            self._row += 1

    def _next(self) -> list[str] | None:
        """Return the fields of the next line that is not blank, None at the end."""
        fields: list[str] | None = []
        while fields == []:
            self._lines.begin_row()
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                self._refuse(self._explained(str(error)))
            except RowTooLongError:
                self._refuse(self._too_long())
        return fields

    def _dialect(self) -> dict[str, Any]:
        return {
            "delimiter": self._delimiter,
            "quotechar": self._quote,
            "escapechar": self._source.escape_character,
            "quoting": csv.QUOTE_NONE if self._quote is None else csv.QUOTE_MINIMAL,
            "doublequote": True,  # without it, csv takes text behind a closing quote for a part of the field
            "strict": True,
        }

    def _may_quote_nothing(self) -> bool:
        return self._source.quoting is None and any(
            (self._quote or "") in line for line in self._lines.of_row
        )

    def _explained(self, reason: str) -> str:
        """Return what csv's message means for the file, and which parameters change it."""
        hints = [] if self._source.quoting else [QUOTING_HINT]
        if self._source.escape_character is None:
            hints.append(ESCAPE_HINT)
        hint = "".join(f"; {hint}" for hint in hints)
        if "expected after" in reason:
            return f"text between a closing quote and the next delimiter{hint}"
        if "unexpected end" in reason:
            what = "a quote is never closed" if self._quote else "the file ends with an escape character"
            return f"{what}{hint}"
        return shorten(reason)

    def _too_long(self) -> str:
        most = f"more than {MAX_ROW_CHARACTERS:,} characters, too long for a review"
        if len(self._lines.of_row) == 1:
            return f"a row of {most}"
        return f"a field with {most}; a quote may not be closed; {QUOTING_HINT}"

    def _refuse_rows_in_a_field(self) -> None:
        """Stop where the lines of a row look like rows themselves: one in between, or both first and last."""
        first, *between, last = self._lines.of_row
        if any(map(self._looks_like_a_row, between)) or all(map(self._looks_like_a_row, (first, last))):
            self._refuse(
                "a quoted field with line breaks, and its lines look like rows themselves; "
                f"{QUOTING_HINT}; where the line breaks belong to the text, quoting: minimal"
            )

    def _looks_like_a_row(self, line: str) -> bool:
        """Whether a line has the header's fields, or more, as texts hold delimiters, and a label or none."""
        fields = line.rstrip("\r\n").split(self._delimiter)
        columns = self._source.columns
        label_at, text_at = self.header.index(columns.label), self.header.index(columns.text)
        if len(fields) < len(self.header):
            return False
        label = fields[label_at if label_at < text_at else label_at - len(self.header)]
        label = label.strip().strip(self._quote).strip()
        return not label or canonicalize_text(label) in self._source.labels

    def _refuse(self, what: str) -> NoReturn:
        row = f"row {self._row}" if self._row else "header"
        raise UserError(f"{self._name} {row}, {self._lines.where()}: {what}")
