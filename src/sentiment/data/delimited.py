"""Strict parser of CSV and TSV files, following RFC 4180 or the quoting that the source specifies.

Many files have no quoting although some of their texts begin with a quote. Parsed by RFC 4180, all text up to
the next quote is one field, and the rows in between are lost without an error. If the source does not specify
the quoting, rows that may come from such a file are rejected.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn, TextIO

from sentiment.data.parquet import ROWS_PER_BATCH
from sentiment.data.validation import CHARACTERS_PER_BATCH, Cells, list_columns, require_columns, shorten
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource
from sentiment.text import canonicalize_group, canonicalize_text

MAX_ROW_CHARACTERS = 4_000_000
"""Maximum characters of a row, including line breaks. Limits the memory if a quote is never closed."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, decoded with the error handler `surrogateescape`."""


class RowTooLongError(Exception):
    """A row has more than MAX_ROW_CHARACTERS characters."""


class LineReader(Iterator[str]):
    """Iterator over lines for `csv.reader`, which records the lines of the current row."""

    def __init__(self, stream: TextIO, name: str) -> None:
        """Read `stream`, which must be opened with `newline=""` and `errors="surrogateescape"`."""
        self._stream = stream
        self._name = name
        self._count = 0
        self.row_lines: list[str] = []
        """Lines of the current row."""
        self._characters = 0

    def start_row(self) -> None:
        """Discard the lines of the previous row."""
        self.row_lines.clear()
        self._characters = 0

    def format_position(self) -> str:
        """Return the line numbers of the current row, for a message."""
        lines = len(self.row_lines)
        return f"line {self._count}" if lines < 2 else f"lines {self._count - lines + 1} to {self._count}"

    def __next__(self) -> str:
        """Return the next line, including its line break.

        Raises:
            RowTooLongError: the row is too long.
            UserError: the line is not UTF-8.
        """
        line = self._stream.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self._count += 1
        self.row_lines.append(line)
        self._characters += len(line)
        if self._characters > MAX_ROW_CHARACTERS:
            raise RowTooLongError
        if not line.isascii() and (found := _UNDECODABLE.search(line)):
            byte = ord(found[0]) - 0xDC00
            raise UserError(f"{self._name}, line {self._count}: not UTF-8 text (byte 0x{byte:02x})")
        return line


DEFAULT_QUOTE = '"'
QUOTING_HINT = "if quotes are ordinary characters, set quoting: none"
ESCAPE_HINT = "if quotes inside a field are written \\\", set escape_character: '\\'"


def read_delimited_rows(stream: BinaryIO, name: str, source: FilesSource, delimiter: str) -> Iterator[Cells]:
    """Yield the rows of a file with a header.

    Args:
        stream: decompressed file.
        name: name of the file, for messages.
        source: source, which specifies the columns and the quoting.
        delimiter: comma or tab.

    Raises:
        UserError: a row has a different number of fields than the header, an unclosed quote, text after a
            closing quote, or too many characters; the file is not UTF-8; or, if the source does not set
            `quoting`, line breaks inside a field may be ends of rows. The message names the row and line.
    """
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # a global limit, before which LineReader raises
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    table = _TableReader(LineReader(text, name), name, source, delimiter)
    columns = source.columns
    text_index, label_index = table.header.index(columns.text), table.header.index(columns.label)
    group_index = None if columns.group is None else table.header.index(columns.group)
    texts: list[str | None] = []
    labels: list[str | None] = []
    groups: list[str | None] = []
    characters = 0
    for fields in table.rows():
        texts.append(fields[text_index])
        labels.append(canonicalize_text(fields[label_index]))
        groups.append(None if group_index is None else canonicalize_group(fields[group_index]))
        characters += len(fields[text_index])
        if len(texts) == ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield texts, labels, groups
            texts, labels, groups, characters = [], [], [], 0
    if texts:
        yield texts, labels, groups


class _TableReader:
    """Rows of a file, validated against its header."""

    def __init__(self, lines: LineReader, name: str, source: FilesSource, delimiter: str) -> None:
        self._lines = lines
        self._name = name
        self._source = source
        self._delimiter = delimiter
        self._quote = None if source.quoting == "none" else source.quote_character or DEFAULT_QUOTE
        self._reader = csv.reader(lines, **self._dialect())
        self._row = 0
        """Number of the current row without blank lines; 0 is the header."""
        header = self._read_fields()
        if header is None:
            raise UserError(f"{name}: the file is empty, the header is missing")
        if "\0" in "".join(header):
            raise UserError(f"{name}: not UTF-8 text: NUL bytes in the header; save it as UTF-8")
        require_columns(name, list_columns(source.columns), header)
        self.header = header

    def rows(self) -> Iterator[list[str]]:
        """Yield the fields of each row."""
        width = len(self.header)
        self._row = 1
        while (fields := self._read_fields()) is not None:
            if len(fields) != width:
                hint = f"; {QUOTING_HINT}" if self._may_be_unquoted() else ""
                self._fail(f"{len(fields)} field(s), but the header has {width}{hint}")
            if len(self._lines.row_lines) > 1 and self._source.quoting is None:
                self._require_no_rows_in_field()
            yield fields
            self._row += 1

    def _read_fields(self) -> list[str] | None:
        """Return the fields of the next row, skipping blank lines, or None at the end."""
        fields: list[str] | None = []
        while fields == []:
            self._lines.start_row()
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                self._fail(self._explain_csv_error(str(error)))
            except RowTooLongError:
                self._fail(self._explain_long_row())
        return fields

    def _dialect(self) -> dict[str, Any]:
        return {
            "delimiter": self._delimiter,
            "quotechar": self._quote,
            "escapechar": self._source.escape_character,
            "quoting": csv.QUOTE_NONE if self._quote is None else csv.QUOTE_MINIMAL,
            "doublequote": True,  # without it, csv appends text after a closing quote to the field
            "strict": True,
        }

    def _may_be_unquoted(self) -> bool:
        return self._source.quoting is None and any(
            (self._quote or "") in line for line in self._lines.row_lines
        )

    def _explain_csv_error(self, reason: str) -> str:
        """Explain an error message of the csv module, and suggest parameters that may help."""
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

    def _explain_long_row(self) -> str:
        size = f"more than {MAX_ROW_CHARACTERS:,} characters, too long for a review"
        if len(self._lines.row_lines) == 1:
            return f"a row of {size}"
        return f"a field of {size}; a quote may be unclosed; {QUOTING_HINT}"

    def _require_no_rows_in_field(self) -> None:
        """Raise UserError if an inner line of a row, or both its first and last line, look like rows."""
        first, *inner, last = self._lines.row_lines
        if any(map(self._looks_like_row, inner)) or all(map(self._looks_like_row, (first, last))):
            self._fail(
                "a quoted field has line breaks, and its lines look like rows; "
                f"{QUOTING_HINT}; if the line breaks are part of the text, set quoting: minimal"
            )

    def _looks_like_row(self, line: str) -> bool:
        """Return whether a line has at least as many fields as the header, and an empty or known label."""
        fields = line.rstrip("\r\n").split(self._delimiter)
        columns = self._source.columns
        label_index, text_index = self.header.index(columns.label), self.header.index(columns.text)
        if len(fields) < len(self.header):
            return False
        label = fields[label_index if label_index < text_index else label_index - len(self.header)]
        label = label.strip().strip(self._quote).strip()
        return not label or canonicalize_text(label) in self._source.labels

    def _fail(self, reason: str) -> NoReturn:
        row = f"row {self._row}" if self._row else "header"
        raise UserError(f"{self._name} {row}, {self._lines.format_position()}: {reason}")
