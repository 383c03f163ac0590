"""From the files of a source to record batches of reviews."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sentiment.errors import UserError
from sentiment.params.data import FilesSource
from sentiment.reviews.fetching import fetch, shown
from sentiment.reviews.files.columns import Cells, brief
from sentiment.reviews.files.delimited import delimited_rows
from sentiment.reviews.files.json_lines import json_rows
from sentiment.reviews.files.locating import addresses_of
from sentiment.reviews.files.packing import Packing, reporting_corrupt_files, unpacked
from sentiment.reviews.files.parquet import parquet_rows
from sentiment.reviews.rows import SCHEMA

PACKINGS: dict[str, Packing] = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_files(source: FilesSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file that `paths` names, in the order of the names; no split.

    Raises UserError where an address matches no file, or the same one as another; where a file is missing,
    empty, corrupt, not UTF-8 or of no known format, lacks a column, or has a label that the source does not
    map; and where its rows could be read in two ways.
    """
    for address in addresses_of(source):
        yield from _read_file(fetch([address], source.checksum), shown(address), source)


def _read_file(path: Path, name: str, source: FilesSource) -> Iterator[pa.RecordBatch]:
    if path.stat().st_size == 0:
        raise UserError(f"{name}: empty, zero bytes")
    kind, packing = _format(name, source)
    done = 0
    with reporting_corrupt_files(name):
        for texts, labels, groups in _rows(path, name, kind, packing, source):
            rows = [f"{name} row {row}" for row in range(done + 1, done + len(texts) + 1)]
            done += len(texts)
            mapped = [_mapped(label, row, source) for label, row in zip(labels, rows, strict=True)]
            columns = [
                pa.array(texts, pa.string()),
                pa.array(mapped, pa.int8()),
                pa.array(groups, pa.string()),
                pa.nulls(len(texts), pa.string()),
                pa.array(rows, pa.string()),
            ]
            batch = pa.record_batch(columns, schema=SCHEMA)
            yield batch.filter(batch["label"].is_valid()) if None in mapped else batch
    if not done:
        raise UserError(f"{name}: no rows in it")


def _rows(path: Path, name: str, kind: str, packing: Packing | None, source: FilesSource) -> Iterator[Cells]:
    if kind == "parquet":
        yield from parquet_rows(path, name, source.columns)
        return
    with unpacked(path, packing) as stream:
        if kind == "jsonl":
            yield from json_rows(stream, name, source.columns)
        else:
            yield from delimited_rows(stream, name, source, DELIMITERS[kind])


def _mapped(label: str | None, row: str, source: FilesSource) -> int | None:
    if label is None:
        raise UserError(f"{row}: no label")
    if label not in source.labels:
        known = ", ".join(source.labels)
        raise UserError(f"{row}: label {brief(label)!r} is not one of those that labels maps: {known}")
    return source.labels[label]


def _format(name: str, source: FilesSource) -> tuple[str, Packing | None]:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    packing = PACKINGS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[-2:-1] if packing else suffixes[-1:]
    kind = FORMATS.get(inner[0]) if source.format == "auto" and inner else None
    if source.format != "auto":
        kind = source.format
    if kind is None:
        known = ", ".join(FORMATS)
        raise UserError(
            f"{name}: format not known by its name; known: {known}, with .gz or .zst; or set format"
        )
    if kind == "parquet" and packing:
        raise UserError(f"{name}: Parquet packs its own columns; unpack the {packing} around it")
    if kind not in DELIMITERS and source.sets_quoting:
        raise UserError(
            f"{name}: quoting, quote_character and escape_character of the source {source.name} are for CSV "
            "and TSV; give other files a source of their own"
        )
    return kind, packing
