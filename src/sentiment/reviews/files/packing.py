"""Files as streams of bytes, unpacked on the way, and what is said where one is corrupt."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from sentiment.errors import UserError
from sentiment.reviews.files.columns import brief

Packing = Literal["gzip", "zstd"]

CORRUPT = "truncated, corrupt or not of its format"


@contextmanager
def unpacked(path: Path, packing: Packing | None) -> Iterator[BinaryIO]:
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
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) or "UTF8" in reason else CORRUPT
        raise UserError(f"{name}: {what}: {brief(reason)}") from None
