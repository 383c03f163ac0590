"""Read the files of a source into record batches of reviews."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from sentiment.data.delimited import read_delimited_rows
from sentiment.data.download import fetch
from sentiment.data.json_parquet import read_json_rows, read_parquet_rows
from sentiment.data.locations import expand_pattern, redact_url, to_local_path
from sentiment.data.parquet import SCHEMA
from sentiment.data.validation import Cells, map_label, shorten
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource

Compression = Literal["gzip", "zstd"]

CORRUPT_REASON = "truncated, corrupt or of another format"


@contextmanager
def open_decompressed(path: Path, compression: Compression | None) -> Iterator[BinaryIO]:
    """Open a file for reading and decompress it.

    Gzip files are read by Python's own module, which supports several members and, like gzip itself, trailing
    zeros. Zstandard files are read by Arrow, which supports several frames and skips skippable frames. Both
    raise an error, which `reporting_corrupt_files` converts, if the file is truncated or has trailing data.
    """
    if compression == "zstd":
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield io.BufferedReader(stream)  # Arrow's stream cannot read lines
    elif compression == "gzip":
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def reporting_corrupt_files(name: str) -> Iterator[None]:
    """Convert the libraries' exceptions for corrupt files into UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = str(error)
        what = (
            "not UTF-8 text" if isinstance(error, UnicodeDecodeError) or "UTF8" in reason else CORRUPT_REASON
        )
        raise UserError(f"{name}: {what}: {shorten(reason)}") from None


def list_files(source: FilesSource) -> list[str]:
    """Return the location of every file of a source, in the order of `paths`; matches of a pattern sorted.

    Raises:
        UserError: a path or pattern matches no file, or a file is matched twice.
    """
    return list_distinct_files([(source.name, source.paths)])


def list_distinct_files(sources: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return the locations of the files of several sources.

    Args:
        sources: name and paths of each source.

    Raises:
        UserError: a path matches no file, or a file is matched twice: its reviews would count twice.
    """
    owners: dict[str, str] = {}
    locations: list[str] = []
    for name, paths in sources:
        for path in paths:
            owner = f"{name}: {redact_url(path)}"
            for location in expand_pattern(path):
                file = _get_canonical_location(location)
                if file in owners:
                    raise UserError(
                        f"{redact_url(location)}: matched twice, by {owners[file]} and by {owner}; "
                        "its reviews would count twice"
                    )
                owners[file] = owner
                locations.append(location)
    return locations


def _get_canonical_location(location: str) -> str:
    """Return the canonical form of a location, so that a file has only one.

    A symbolic link to a file is not resolved, because DVC may link equal files to one file in its cache.
    """
    path = to_local_path(location)
    return location if path is None else str(path.parent.resolve() / path.name)


COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_files(source: FilesSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file of a source in the order of `paths`, without split.

    Raises:
        UserError: a path matches no file; a file is missing, empty, corrupt, not UTF-8, of unknown format or
            matched twice, lacks a column, has a label that the source does not map, or is ambiguous.
    """
    for location in list_files(source):
        yield from _read_file(fetch([location], source.checksum), redact_url(location), source)


def _read_file(path: Path, name: str, source: FilesSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of a file, with their labels mapped, in batches of SCHEMA."""
    if path.stat().st_size == 0:
        raise UserError(f"{name}: the file is empty (0 bytes)")
    kind, compression = _detect_format(name, source)
    rows_read = 0
    with reporting_corrupt_files(name):
        for texts, labels, groups in _read_rows(path, name, kind, compression, source):
            rows = [f"{name} row {row}" for row in range(rows_read + 1, rows_read + len(texts) + 1)]
            rows_read += len(texts)
            mapped = [map_label(label, row, source.labels) for label, row in zip(labels, rows, strict=True)]
            columns = [
                pa.array(texts, pa.string()),
                pa.array(mapped, pa.int8()),
                pa.array(groups, pa.string()),
                pa.nulls(len(texts), pa.string()),
                pa.array(rows, pa.string()),
            ]
            batch = pa.record_batch(columns, schema=SCHEMA)
            yield batch.filter(batch["label"].is_valid()) if None in mapped else batch
    if not rows_read:
        raise UserError(f"{name}: contains no rows")


def _read_rows(
    path: Path, name: str, kind: str, compression: Compression | None, source: FilesSource
) -> Iterator[Cells]:
    """Yield the cells of a file's rows with the parser for its format."""
    if kind == "parquet":
        yield from read_parquet_rows(path, name, source.columns)
        return
    with open_decompressed(path, compression) as stream:
        if kind == "jsonl":
            yield from read_json_rows(stream, name, source.columns)
        else:
            yield from read_delimited_rows(stream, name, source, DELIMITERS[kind])


def _detect_format(name: str, source: FilesSource) -> tuple[str, Compression | None]:
    """Return the format and the compression of a file, by its name or the parameter `format`."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[-2:-1] if compression else suffixes[-1:]
    kind = FORMATS.get(inner[0]) if source.format == "auto" and inner else None
    if source.format != "auto":
        kind = source.format
    if kind is None:
        known = ", ".join(FORMATS)
        raise UserError(
            f"{name}: unknown file name extension; known: {known}, also with .gz or .zst; or set format"
        )
    if kind == "parquet" and compression:
        raise UserError(f"{name}: Parquet has its own compression; decompress the {compression} file")
    if kind not in DELIMITERS and source.sets_quoting:
        raise UserError(
            f"{name}: quoting, quote_character and escape_character of the source {source.name} apply to CSV "
            "and TSV only; use another source for other files"
        )
    return kind, compression
