"""Reviews from files of one's own: CSV, TSV, JSON Lines or Parquet, plain or packed."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sentiment.errors import UserError
from sentiment.params.data import Columns, FilesSource
from sentiment.reviews.fetching import fetch, matching, shown
from sentiment.reviews.rows import ROWS_PER_BATCH, SCHEMA
from sentiment.reviews.storage import READ_BYTES

PACKED: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
CSV_BLOCK = 1 << 22
"""Bytes of a CSV parsed at a time; a row must fit."""

LONGEST_QUOTE = 200
"""Characters of a file that a message repeats: the first line of a page can be all of it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON can write and UTF-8 cannot: a post that was cut off in mid emoji."""

Rows = Iterator[Sequence[list[str | None]]]
"""For each batch: texts, labels as text, groups."""


def read_files(source: FilesSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file that `paths` names, in the order of the names; no split.

    Raises UserError where an address matches no file, a file is missing, empty, torn, not UTF-8 or of no
    known format, lacks a column, or has a label that the source does not map.
    """
    for address in source.paths:
        for found in matching(address):
            yield from _read_file(fetch([found], source.checksum), shown(found), source)


def _read_file(path: Path, name: str, source: FilesSource) -> Iterator[pa.RecordBatch]:
    if path.stat().st_size == 0:
        raise UserError(f"{name}: empty, zero bytes")
    kind, packed = _format(path, name, source)
    done = 0
    with _faults_told(name):
        for texts, labels, groups in _rows(path, name, kind, packed, source.columns):
            rows = [f"{name} row {row}" for row in range(done + 1, done + len(texts) + 1)]
            done += len(texts)
            mapped = [_mapped(label, row, source) for label, row in zip(labels, rows, strict=True)]
            kept = [position for position, label in enumerate(mapped) if label is not None]
            columns = [
                pa.array([texts[i] for i in kept], pa.string()),
                pa.array([mapped[i] for i in kept], pa.int8()),
                pa.array([groups[i] for i in kept], pa.string()),
                pa.nulls(len(kept), pa.string()),
                pa.array([rows[i] for i in kept], pa.string()),
            ]
            yield pa.record_batch(columns, schema=SCHEMA)
    if not done:
        raise UserError(f"{name}: no rows in it")


def _rows(path: Path, name: str, kind: str, packed: Literal["gzip", "zstd"] | None, columns: Columns) -> Rows:
    if kind == "parquet":
        yield from _parquet_rows(path, name, columns)
        return
    with pa.input_stream(str(path), compression=packed) as stream:
        if kind == "jsonl":
            yield from _json_rows(io.BufferedReader(stream), name, columns)  # Arrow's own has no lines
            return
    yield from _csv_rows(path, name, packed, columns, "\t" if kind == "tsv" else ",")


def _csv_rows(
    path: Path, name: str, packed: Literal["gzip", "zstd"] | None, columns: Columns, delimiter: str
) -> Rows:
    wanted = _wanted(columns)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False)  # as fast, and errors name the row
    with pa.input_stream(str(path), compression=packed) as stream:
        _require(name, wanted, csv.open_csv(stream, read, parse).schema.names)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()),
        include_columns=wanted,
        quoted_strings_can_be_null=False,
    )
    with pa.input_stream(str(path), compression=packed) as stream:
        for block in csv.open_csv(stream, read, parse, convert):
            yield from _of_table(pa.Table.from_batches([block]), columns)


def _parquet_rows(path: Path, name: str, columns: Columns) -> Rows:
    wanted = _wanted(columns)
    # Reading ahead, Arrow's default, keeps all that was read of the file until its end.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        _require(name, wanted, file.schema_arrow.names)
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
            yield from _of_table(pa.Table.from_batches([batch]), columns)


def _json_rows(stream: BinaryIO, name: str, columns: Columns) -> Rows:
    wanted = _wanted(columns)
    waiting: list[list[str | None]] = [[], [], []]
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except UnicodeDecodeError as error:
            raise UserError(f"{name}, line {number}: not UTF-8 text ({error.reason})") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # also a number of thousands of digits, brackets in heaps
            raise UserError(f"{name}, line {number}: not JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(values, dict):
            raise UserError(
                f"{name}, line {number}: expected an object with the columns, found {line[:40]!r}"
            )
        _require(f"{name}, line {number}", wanted, list(values))
        for column, key in zip(waiting, (columns.text, columns.label, columns.group), strict=True):
            column.append(_as_text(values[key]) if key is not None else None)
        if len(waiting[0]) == ROWS_PER_BATCH:
            yield waiting
            waiting = [[], [], []]
    if waiting[0]:
        yield waiting


def _of_table(table: pa.Table, columns: Columns) -> Rows:
    for start in range(0, len(table), ROWS_PER_BATCH):
        part = table.slice(start, ROWS_PER_BATCH)
        yield [
            part[key].cast(pa.string()).to_pylist() if key is not None else [None] * len(part)
            for key in (columns.text, columns.label, columns.group)
        ]


def _wanted(columns: Columns) -> list[str]:
    return list(dict.fromkeys(key for key in (columns.text, columns.label, columns.group) if key is not None))


def _require(name: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(f"{name}: no column {', '.join(missing)}; columns found: {_brief(', '.join(found))}")
    double = [key for key in wanted if found.count(key) > 1]
    if double:
        raise UserError(
            f"{name}: more than one column {', '.join(double)}; found: {_brief(', '.join(found))}"
        )


def _mapped(label: str | None, row: str, source: FilesSource) -> int | None:
    if label is None:
        raise UserError(f"{row}: no label")
    if label not in source.labels:
        known = ", ".join(source.labels)
        raise UserError(f"{row}: label {_brief(label)!r} is not one of those that labels maps: {known}")
    return source.labels[label]


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    return _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else json.dumps(value)


def _format(path: Path, name: str, source: FilesSource) -> tuple[str, Literal["gzip", "zstd"] | None]:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    packed = PACKED.get(suffixes[-1]) if suffixes else None
    inner = suffixes[-2:-1] if packed else suffixes[-1:]
    kind = FORMATS.get(inner[0]) if source.format == "auto" and inner else None
    if source.format != "auto":
        kind = source.format
    if kind is None:
        known = ", ".join(FORMATS)
        raise UserError(
            f"{name}: format not known by its name; known: {known}, with .gz or .zst; or set format"
        )
    if kind == "parquet" and packed:
        raise UserError(f"{name}: Parquet packs its own columns; unpack the {packed} around it")
    return kind, packed


@contextmanager
def _faults_told(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names of columns
        reason = str(error)
        what = "torn, or not of its format"
        if isinstance(error, UnicodeDecodeError) or "UTF8" in reason or "\0" in reason:  # the zeros of UTF-16
            what = "not UTF-8 text"
        elif isinstance(error, pa.ArrowNotImplementedError):
            what = "a column that is not text"
        raise UserError(f"{name}: {what}: {_brief(reason)}") from None


def _brief(text: str) -> str:
    """Return the beginning of what a file says, fit for a terminal."""
    first = text.partition("\n")[0][:LONGEST_QUOTE]
    return "".join(character if character.isprintable() else "\ufffd" for character in first)
