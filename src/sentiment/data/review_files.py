"""From the files of a source to record batches of reviews."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from sentiment.data.addresses import expand_pattern, redact_url, to_local_path
from sentiment.data.delimited import read_delimited_rows
from sentiment.data.download import fetch
from sentiment.data.json_parquet import read_json_rows, read_parquet_rows
from sentiment.data.parquet import SCHEMA
from sentiment.data.validation import Cells, shorten
from sentiment.errors import UserError
from sentiment.params.data import FilesSource

Compression = Literal["gzip", "zstd"]

CORRUPT_REASON = "truncated, corrupt or not of its format"


@contextmanager
def open_decompressed(path: Path, packing: Compression | None) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked as it is read.

    Gzip goes by Python's own module, which reads several members and, as gzip itself, zeros behind the last
    one. Zstandard goes by Arrow, which reads several frames and skips those that are to be skipped. Both
    raise an error, caught by `reporting_corrupt_files`, where the file ends early or goes on with something
    else.
    """
    if packing == "zstd":
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield io.BufferedReader(stream)  # Arrow's own cannot read a line
    elif packing == "gzip":
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def reporting_corrupt_files(name: str) -> Iterator[None]:
    """Turn what the libraries raise for a file that is not what it should be into a UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = str(error)
        what = (
            "not UTF-8 text" if isinstance(error, UnicodeDecodeError) or "UTF8" in reason else CORRUPT_REASON
        )
        raise UserError(f"{name}: {what}: {shorten(reason)}") from None


def list_files(source: FilesSource) -> list[str]:
    """Return the address of every file of a source, in the order of `paths` and then of the names.

    Raises UserError where a path or pattern names no file, or two of them name the same one.
    """
    return _list_distinct_files([(source.name, source.paths)])


def require_distinct_files(sources: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Raise UserError where one file is named twice, since its reviews would count twice.

    sources: the name of each source of files, and its paths, patterns or addresses.
    """
    _list_distinct_files(sources)


def _list_distinct_files(sources: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    owners: dict[str, str] = {}
    addresses: list[str] = []
    for name, paths in sources:
        for path in paths:
            owner = f"{name}: {redact_url(path)}"
            for address in expand_pattern(path):
                file = _get_canonical_location(address)
                if file in owners:
                    raise UserError(
                        f"{redact_url(address)}: named twice, by {owners[file]} and by {owner}; "
                        "its reviews would count twice"
                    )
                owners[file] = owner
                addresses.append(address)
    return addresses


def _get_canonical_location(address: str) -> str:
    """Return one text for every way to write the address of a file.

    A link in the last place stays: DVC may link two files with equal content to one in its cache.
    """
    path = to_local_path(address)
    return address if path is None else str(path.parent.resolve() / path.name)


COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_files(source: FilesSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file that `paths` names, in the order of the names; no split.

    Raises UserError where an address matches no file, or the same one as another; where a file is missing,
    empty, corrupt, not UTF-8 or of no known format, lacks a column, or has a label that the source does not
    map; and where its rows could be read in two ways.
    """
    for address in list_files(source):
        yield from _read_file(fetch([address], source.checksum), redact_url(address), source)


def _read_file(path: Path, name: str, source: FilesSource) -> Iterator[pa.RecordBatch]:
    if path.stat().st_size == 0:
        raise UserError(f"{name}: empty, zero bytes")
    kind, packing = _detect_format(name, source)
    done = 0
    with reporting_corrupt_files(name):
        for texts, labels, groups in _read_rows(path, name, kind, packing, source):
            rows = [f"{name} row {row}" for row in range(done + 1, done + len(texts) + 1)]
            done += len(texts)
            mapped = [_map_label(label, row, source) for label, row in zip(labels, rows, strict=True)]
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


def _read_rows(
    path: Path, name: str, kind: str, packing: Compression | None, source: FilesSource
) -> Iterator[Cells]:
    if kind == "parquet":
        yield from read_parquet_rows(path, name, source.columns)
        return
    with open_decompressed(path, packing) as stream:
        if kind == "jsonl":
            yield from read_json_rows(stream, name, source.columns)
        else:
            yield from read_delimited_rows(stream, name, source, DELIMITERS[kind])


def _map_label(label: str | None, row: str, source: FilesSource) -> int | None:
    if label is None:
        raise UserError(f"{row}: no label")
    if label not in source.labels:
        known = ", ".join(source.labels)
        raise UserError(f"{row}: label {shorten(label)!r} is not one of those that labels maps: {known}")
    return source.labels[label]


def _detect_format(name: str, source: FilesSource) -> tuple[str, Compression | None]:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    packing = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
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
