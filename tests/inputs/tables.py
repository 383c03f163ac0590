"""Files of reviews and their content by the specification of the format."""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = tuple[str, int, str | None]
"""Text, label, group."""


@dataclass(frozen=True)
class TableInput:
    """Files in an empty repository and a source that names them."""

    name: str
    rule: str
    """Where it is written what the bytes mean."""
    files: Mapping[str, bytes]
    rows: tuple[Row, ...] | None = None
    """What must be read. With `error` too, either is right."""
    error: str | None = None
    """Part of the message that refuses the source."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the source beside the usual ones."""
    grouped: bool = False
    """Whether the files have a column `group`."""


def _zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def _parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


PLAIN = b"text,label\nA fine film,1\nA waste of time,0\n"
PLAIN_ROWS: tuple[Row, ...] = (("A fine film", 1, None), ("A waste of time", 0, None))
SKIPPABLE_FRAME = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"note"

DELIMITED = (
    TableInput(
        "doubled quotes and a delimiter inside quotes",
        "RFC 4180, 2.6 and 2.7",
        {"a.csv": b'text,label\n"He said ""no"", twice",1\n'},
        rows=(('He said "no", twice', 1, None),),
    ),
    TableInput(
        "a line break inside quotes",
        "RFC 4180, 2.6",
        {"a.csv": b'text,label\r\n"First line.\r\nSecond line.",1\r\nShort,0\r\n'},
        rows=(("First line.\r\nSecond line.", 1, None), ("Short", 0, None)),
    ),
    TableInput(
        "a quote inside a field that is not quoted",
        "RFC 4180, 2.5 forbids it; every reader takes it as it stands",
        {"a.csv": b'text,label\nA 70" screen of a film,1\n'},
        rows=(('A 70" screen of a film', 1, None),),
    ),
    TableInput(
        "a space in front of a quote",
        "RFC 4180, 2.4: spaces are part of a field, so the delimiter ends it",
        {"a.csv": b'text,label\n "long, dull",0\n'},
        error="row 1",
    ),
    TableInput(
        "text behind a closing quote",
        "RFC 4180, 2.5",
        {"a.csv": b'text,label\n"Good" is not the word,0\n'},
        error="row 1",
    ),
    TableInput(
        "a delimiter too many",
        "RFC 4180, 2.4: each line has the same number of fields",
        {"a.csv": PLAIN + b"Dull, long and loud,0\n"},
        error="row 3",
    ),
    TableInput(
        "a field too few",
        "RFC 4180, 2.4",
        {"a.csv": PLAIN + b"Dull\n"},
        error="row 3",
    ),
    TableInput(
        "a column name twice",
        "RFC 4180, 2.3: the header names the fields",
        {"a.csv": b"text,label,text\nA fine film,1,A waste of time\n"},
        error="text",
    ),
    TableInput(
        "lines that end with a carriage return alone",
        "the old Macintosh line end, which Python's csv reads",
        {"a.csv": PLAIN.replace(b"\n", b"\r")},
        rows=PLAIN_ROWS,
        error="line",
    ),
    TableInput(
        "a byte-order mark, and no line end at the end",
        "RFC 3629, 6; RFC 4180, 2.2",
        {"a.csv": b"\xef\xbb\xbf" + PLAIN.rstrip(b"\n")},
        rows=PLAIN_ROWS,
    ),
    TableInput(
        "blank lines between rows",
        "Python's csv and pandas skip them",
        {"a.csv": PLAIN.replace(b"\n", b"\n\n")},
        rows=PLAIN_ROWS,
        error="row",
    ),
    TableInput(
        "semicolons for commas",
        "RFC 4180 knows commas alone",
        {"a.csv": PLAIN.replace(b",", b";")},
        error="text;label",
    ),
    TableInput(
        "a backslash in front of an n, nothing quoted",
        "IANA text/tab-separated-values: no escapes",
        {"a.tsv": b"text\tlabel\nFirst\\nSecond\\\t1\n"},
        rows=(("First\\nSecond\\", 1, None),),
        source={"quoting": "none"},
    ),
    TableInput(
        "marks of every kind, nothing quoted",
        "IANA text/tab-separated-values: no quotes",
        {"a.tsv": b'text\tlabel\n""\t1\n"Oh\t0\nno"\t0\nsaid "so"\t1\n'},
        rows=(('""', 1, None), ('"Oh', 0, None), ('no"', 0, None), ('said "so"', 1, None)),
        source={"quoting": "none"},
    ),
    TableInput(
        "an escaped quote before a delimiter",
        "csv.Dialect.escapechar",
        {"a.csv": b'text,label\n"He said \\"no\\", twice",1\n'},
        rows=(('He said "no", twice', 1, None),),
        source={"escape_character": "\\"},
    ),
    TableInput(
        "another quote character",
        "csv.Dialect.quotechar",
        {"a.csv": b"text,label\n'It''s good, really',1\n\"Bad\",0\n"},
        rows=(("It's good, really", 1, None), ('"Bad"', 0, None)),
        source={"quote_character": "'"},
    ),
    TableInput(
        "a quote that opens in one row and closes twenty rows on",
        "RFC 4180 makes one field of it; a file that quotes nothing has twenty-two rows",
        {
            "a.tsv": b"text\tlabel\n"
            + b'"Oh\t1\n'
            + b"".join(b"Row %d\t%d\n" % (row, row % 2) for row in range(20))
            + b'no"\t0\n'
        },
        error="row 1",
    ),
)

PACKED = (
    TableInput(
        "gzip of two members",
        "RFC 1952, 2.2",
        {"a.csv.gz": gzip.compress(PLAIN[:20]) + gzip.compress(PLAIN[20:])},
        rows=PLAIN_ROWS,
    ),
    TableInput(
        "gzip without its trailer",
        "RFC 1952, 2.3.1",
        {"a.csv.gz": gzip.compress(PLAIN)[:-8]},
        error="a.csv.gz",
    ),
    TableInput(
        "gzip with something else behind it",
        "RFC 1952, 2.2: members follow one another, with nothing else between or behind",
        {"a.csv.gz": gzip.compress(PLAIN) + b"text,label\n"},
        error="a.csv.gz",
    ),
    TableInput(
        "zstd of two frames and one to be skipped",
        "RFC 8878, 3.1",
        {"a.csv.zst": _zstd(PLAIN[:20]) + SKIPPABLE_FRAME + _zstd(PLAIN[20:])},
        rows=PLAIN_ROWS,
    ),
    TableInput(
        "zstd cut short behind its first frame",
        "RFC 8878, 3.1.1",
        {"a.csv.zst": _zstd(PLAIN) + _zstd(b"Dull,0\n")[:-3]},
        error="a.csv.zst",
    ),
)

JSON_LINES = (
    TableInput(
        "a line separator inside a string",
        "RFC 8259, 7: U+2028 may stand in a string; JSON Lines ends lines with \\n alone",
        {"a.jsonl": '{"text": "One\u2028two\u0085three", "label": 1}\n'.encode()},
        rows=(("One\u2028two\u0085three", 1, None),),
    ),
    TableInput(
        "a byte-order mark",
        "RFC 8259, 8.1: may be ignored, or is an error",
        {"a.jsonl": b'\xef\xbb\xbf{"text": "Fine", "label": 1}\n'},
        rows=(("Fine", 1, None),),
        error="line 1",
    ),
    TableInput(
        "one name twice in an object",
        "RFC 8259, 4: names should be unique; what a reader makes of others is not foretold",
        {"a.jsonl": b'{"text": "Fine", "label": 1, "label": 0}\n'},
        error="line 1",
    ),
    TableInput(
        "NaN",
        "RFC 8259, 6: no number",
        {"a.jsonl": b'{"text": "Fine", "label": NaN}\n'},
        error="line 1",
    ),
    TableInput(
        "one label in three spellings",
        "RFC 8259, 6: 1 and 1.0 are one number",
        {"a.jsonl": b"".join(b'{"text": "Fine", "label": %s}\n' % label for label in (b"1", b"1.0", b'"1"'))},
        rows=(("Fine", 1, None),) * 3,
    ),
    TableInput(
        "a number for a text",
        "a review is a string",
        {"a.jsonl": b'{"text": 12, "label": 1}\n'},
        error="row 1",
    ),
)

PARQUET = (
    TableInput(
        "labels and groups that pandas made numbers with a fraction",
        "pandas: a column of integers with a gap becomes float64",
        {"a.parquet": _parquet(text=["Fine", "Dull"], label=[1.0, 0.0], group=pa.array([7.0, None]))},
        rows=(("Fine", 1, "7"), ("Dull", 0, None)),
        grouped=True,
    ),
    TableInput(
        "a text column of a dictionary, with a gap in the labels' type",
        "Parquet's logical types",
        {
            "a.parquet": _parquet(
                text=pa.array(["Fine", "Dull"]).dictionary_encode(), label=pa.array([True, False])
            )
        },
        rows=(("Fine", 1, None), ("Dull", 0, None)),
        source={"labels": {True: 1, False: 0}},
    ),
    TableInput(
        "texts that are lists",
        "a review is a string",
        {"a.parquet": _parquet(text=[["Fine", "film"]], label=[1])},
        error="text",
    ),
)

GROUPS = (
    TableInput(
        "numbers with leading zeros, and cells of white space",
        "identifiers are text: 007 is not 7; an empty cell names nothing",
        {"a.csv": b"text,label,group\nA,1,007\nB,0,7\nC,1,  \nD,0,\n"},
        rows=(("A", 1, "007"), ("B", 0, "7"), ("C", 1, None), ("D", 0, None)),
        grouped=True,
    ),
)

PATHS = (
    TableInput(
        "files that a file manager or a notebook left",
        "glob(7): a leading dot is matched by a dot alone",
        {"in/a.csv": PLAIN, "in/._a.csv": b"\0\5\x16\7", "in/.ipynb_checkpoints/a-checkpoint.csv": PLAIN},
        rows=PLAIN_ROWS,
        source={"paths": ["in/**/*.csv"]},
    ),
    TableInput(
        "a question mark in a name, and a file that it would match",
        "POSIX 2.13: a pattern that names an existing file by its letters is that file, as users mean it",
        {"a?.csv": PLAIN, "ab.csv": b"text,label\nAnother,0\n"},
        rows=PLAIN_ROWS,
        source={"paths": ["a?.csv"]},
    ),
    TableInput(
        "a percent-encoded space in a file address",
        "RFC 8089 and RFC 3986, 2.1",
        {"a b.csv": PLAIN, "a%20b.csv": b"text,label\nAnother,0\n"},
        rows=PLAIN_ROWS,
        source={"paths": ["file://{root}/a%20b.csv"]},
    ),
    TableInput(
        "one file by two patterns",
        "each review once",
        {"a.csv": PLAIN},
        error="a.csv",
        source={"paths": ["a.csv", "*.csv"]},
    ),
    TableInput(
        "a folder that a pattern matches",
        "glob(7) matches folders too; a folder holds no rows",
        {"a.csv": PLAIN, "b.csv/c.txt": b"no table"},
        rows=PLAIN_ROWS,
        error="b.csv",
        source={"paths": ["*.csv"]},
    ),
)

TABLES = (*DELIMITED, *PACKED, *JSON_LINES, *PARQUET, *GROUPS, *PATHS)
