"""Files that do not have the format of their description."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.invalid_sources import Case, Place, case
from tests.data.source_files import files_source, write_bytes, write_rows

GROUPED = {"text": "text", "label": "label", "group": "film"}


def _source(name: str, **source: Any) -> dict[str, Any]:
    return {"sources": [files_source(name, **source)]}


def _content(title: str, name: str, content: bytes, *messages: str, **source: Any) -> Case:
    """A file of this content, compressed according to its name."""

    def prepare(_: Place) -> dict[str, Any]:
        write_bytes(Path(name), content)
        return _source(name, **source)

    return case(title, prepare, name, *messages)


def _cut(name: str, where: Callable[[int], int], *messages: str) -> Case:
    """A file of real reviews that ends too early."""

    def prepare(place: Place) -> dict[str, Any]:
        content = write_rows(Path(name), place.rows).read_bytes()
        Path(name).write_bytes(content[: where(len(content))])
        return _source(name)

    return case(f"{name} cut at {where(1_000)} of 1,000 bytes", prepare, f"{name}: ", *messages)


def _raw(title: str, name: str, content: bytes, *messages: str) -> Case:
    """A file whose name promises another packing or format."""

    def prepare(_: Place) -> dict[str, Any]:
        Path(name).write_bytes(content)
        return _source(name)

    return case(title, prepare, f"{name}: ", *messages)


def _table(title: str, columns: dict[str, Any], *messages: str, **source: Any) -> Case:
    def prepare(_: Place) -> dict[str, Any]:
        pq.write_table(pa.table(columns), "a.parquet")
        return _source("a.parquet", **source)

    return case(title, prepare, "a.parquet", *messages)


def _folder(_: Place) -> dict[str, Any]:
    Path("a.csv").mkdir()
    return _source("a.csv")


def _packed_parquet(place: Place) -> dict[str, Any]:
    content = write_rows(Path("a.parquet"), place.rows).read_bytes()
    write_bytes(Path("a.parquet.gz"), content)
    return _source("a.parquet.gz")


CORRUPT = "truncated, corrupt or of another format"
LABELLED = b"text,label\nGood,1\n"

CASES = [
    case("no such file", lambda _: _source("mine.csv"), "mine.csv: no such file"),
    case("pattern matches nothing", lambda _: _source("mine/*.csv"), "mine/*.csv: matches no file"),
    case("folder", _folder, "a.csv: a folder, not a file"),
    _content("format not known", "a.xlsx", b"PK", "unknown file name extension; known: .csv, .tsv"),
    _content("no suffix", "reviews", LABELLED, "unknown file name extension"),
    _raw("zero bytes of CSV", "a.csv", b"", "the file is empty (0 bytes)"),
    _raw("zero bytes of JSON Lines", "a.jsonl", b"", "the file is empty (0 bytes)"),
    _raw("zero bytes of Parquet", "a.parquet", b"", "the file is empty (0 bytes)"),
    _content("gzip of nothing", "a.csv.gz", b"", "the file is empty, the header is missing"),
    _content("only a header", "a.csv", b"text,label\n", "contains no rows"),
    _content("only a header, packed", "a.tsv.zst", b"text\tlabel\n", "contains no rows"),
    _content("only blank lines", "a.jsonl", b"\n\n", "contains no rows"),
    _table("Parquet without rows", {"text": pa.array([], pa.string()), "label": []}, "contains no rows"),
    _content(
        "no text column", "a.csv", b"review,label\nGood,1\n", "no column text; columns found: review, label"
    ),
    _content(
        "no label column", "a.tsv", b"text\tstars\nGood\t1\n", "no column label; columns found: text, stars"
    ),
    _content(
        "no group column", "a.csv", LABELLED, "no column film; columns found: text, label", columns=GROUPED
    ),
    _content("commas in a TSV", "a.tsv", LABELLED, "no column text, label; columns found: text,label"),
    _content(
        "page instead of a CSV", "a.csv", b"<html><body>Log in</body></html>\n", "no column text, label"
    ),
    _table("Parquet of other columns", {"review": ["a"]}, "no column text, label; columns found: review"),
    _content(
        "JSON line without the label",
        "a.jsonl",
        b'{"text": "Good", "label": 1}\n{"text": "Bad"}\n',
        "a.jsonl, line 2: no column label; columns found: text",
    ),
    _content("same column twice", "a.csv", b"text,text,label\nA,B,1\n", "more than one column text"),
    _content(
        "label outside the map",
        "a.csv",
        b"text,label\nGood,1\nSo so,5\n",
        "row 2: label '5' is not one of",
        "0, 1",
    ),
    _content(
        "label of another case", "a.csv", b"text,label\nGood,Pos\n", "row 1: label 'Pos'", labels={"pos": 1}
    ),
    _content("JSON label outside the map", "a.jsonl", b'{"text": "A", "label": 5}\n', "row 1: label '5'"),
    _content(
        "JSON label that is a list",
        "a.jsonl",
        b'{"text": "A", "label": [1]}\n',
        "row 1, line 1: expected label to be a string, a number or a boolean, found a list",
    ),
    _content("empty label", "a.csv", b"text,label\nGood,1\nBad,\n", "row 2: label ''"),
    _content("null label", "a.jsonl", b'{"text": "A", "label": null}\n', "a.jsonl row 1: no label"),
    _table("null label in Parquet", {"text": ["A", "B"], "label": [1, None]}, "a.parquet row 2: no label"),
    _content("CSV in Latin-1", "a.csv", "text,label\nSchön,1\n".encode("latin-1"), "not UTF-8 text"),
    _content("CSV in UTF-16", "a.csv", LABELLED.decode().encode("utf-16"), "not UTF-8 text"),
    _content(
        "JSON Lines in Latin-1",
        "a.jsonl",
        b'{"text": "Good", "label": 1}\n' + '{"text": "Schön", "label": 1}\n'.encode("latin-1"),
        "a.jsonl, line 2: not UTF-8 text",
    ),
    _table("bytes in Parquet", {"text": [b"Sch\xf6n"], "label": [1]}, "not UTF-8 text"),
    _table("lists in Parquet", {"text": [["Good"]], "label": [1]}, "the column text is of type list"),
    _cut("a.csv.gz", lambda size: size // 2, CORRUPT),
    _cut("a.csv.gz", lambda size: size - 9, CORRUPT),
    _cut("a.jsonl.gz", lambda size: size // 2, CORRUPT),
    _cut("a.csv.zst", lambda size: size // 2, CORRUPT),
    _cut("a.jsonl.zst", lambda size: size - 9, CORRUPT),
    _cut("a.parquet", lambda size: size // 2, CORRUPT),
    _cut("a.parquet", lambda size: size - 1, CORRUPT),
    _cut("a.parquet", lambda _: 3, CORRUPT),
    _raw("CSV with the extension of gzip", "a.csv.gz", LABELLED, CORRUPT),
    _raw("JSON Lines with the extension of zstd", "a.jsonl.zst", b'{"text": "A", "label": 1}\n', CORRUPT),
    _raw("CSV with the extension of Parquet", "a.parquet", LABELLED, CORRUPT),
    case(
        "Parquet in gzip",
        _packed_parquet,
        "a.parquet.gz: Parquet has its own compression; decompress the gzip",
    ),
    _content(
        "line that is no JSON",
        "a.jsonl",
        b'{"text": "A", "label": 1}\nGood,1\n',
        "line 2: invalid JSON: Expecting",
    ),
    _content(
        "line cut off", "a.jsonl", b'{"text": "A", "label": 1}\n{"text": "B', "line 2: invalid JSON: Untermin"
    ),
    _content("brackets in heaps", "a.jsonl", b"[" * 200_000, "line 1: invalid JSON: "),
    _content("number without end", "a.jsonl", b"9" * 5_000, "line 1: invalid JSON: "),
    _content(
        "line that is a list", "a.jsonl", b'["Good", 1]\n', "line 1: expected an object with the columns"
    ),
    _content("line that is a text", "a.jsonl", b'"Good"\n', "line 1: expected an object with the columns"),
    _content(
        "JSON array over lines", "a.jsonl", b'[\n{"text": "A", "label": 1}\n]\n', "line 1: invalid JSON: "
    ),
    _content("header without end", "a.csv", b"x" * 5_000 + b"\n1\n", "columns found: " + "x" * 200 + "\n"),
    _content("escape codes in a label", "a.csv", b"text,label\nA,\x1b[2J\n", "label '\ufffd[2J' is not one"),
    _content(
        "too many fields",
        "a.csv",
        LABELLED + b"Good, bad,1\n",
        "row 2, line 3: 3 field(s), but the header has 2",
    ),
    _content(
        "too few fields", "a.csv", LABELLED + b"Good\n", "row 2, line 3: 1 field(s), but the header has 2"
    ),
]
