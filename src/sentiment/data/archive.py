"""Streaming reader of untrusted tar archives: nothing is extracted to disk, and resources are limited.

Python's `tarfile` can read streams, too, but it treats a corrupt header or a missing end as the end of the
archive, and it reads extended headers of any size into memory. It is only used to parse single headers.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sentiment.errors import UserError
from sentiment.params.sources import ArchiveLimits

BLOCK = tarfile.BLOCKSIZE
GZIP_MAGIC = b"\x1f\x8b"
SKIP_BYTES = 1 << 20
"""Chunk size in bytes for skipping members."""
MIN_BYTES_FOR_RATIO = 1 << 20
"""The ratio is only limited above this many decompressed bytes: tiny archives consist mostly of padding."""
MAX_EXTENSION_BYTES = 1 << 16
"""Maximum size of an extended header. It contains a name, and paths on Linux have at most 4,096 bytes."""

_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_REGULAR_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def stream_members(
    path: Path, limits: ArchiveLimits, wanted: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each regular file in a tar archive, in order, one at a time in memory.

    The caller must discard everything that was read if an exception is raised.

    Args:
        path: path of the tar archive, uncompressed or compressed with gzip.
        limits: resource limits.
        wanted: function that returns whether to yield the member of a name. The other members are validated
            and skipped. None: yield all members.

    Raises:
        UserError: the archive is not a tar archive, is truncated or corrupt, exceeds a limit, or contains a
            link, a device, a sparse file or a path outside the archive.
    """
    try:
        with path.open("rb") as file:
            compressed_bytes = path.stat().st_size
            if not compressed_bytes:
                raise UserError(f"{path}: the file is empty (0 bytes)")
            gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            decompressed = gzip.GzipFile(fileobj=file) if gzipped else file
            stream = _LimitedStream(path, decompressed, compressed_bytes if gzipped else None, limits)
            yield from _iterate_members(stream, limits, wanted or (lambda _: True))
    except EOFError:
        raise UserError(f"{path}: truncated: unexpected end of the compressed data") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: corrupt: {error}") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path}: {error.strerror}") from None


class _LimitedStream:
    """Decompressed stream that raises UserError when the archive exceeds a limit."""

    def __init__(
        self, path: Path, file: BinaryIO | gzip.GzipFile, compressed_bytes: int | None, limits: ArchiveLimits
    ) -> None:
        self.path, self.file = path, file
        self.count = 0
        self.max_bytes, self.violation = (
            limits.total_bytes,
            f"more than {limits.total_bytes:,} bytes when decompressed",
        )
        if compressed_bytes is not None:
            by_ratio = max(int(compressed_bytes * limits.ratio), MIN_BYTES_FOR_RATIO)
            if by_ratio < self.max_bytes:
                self.max_bytes = by_ratio
                self.violation = f"more than {limits.ratio:g} times its size when decompressed"

    def read(self, amount: int, member: str = "") -> bytes:
        """Read exactly `amount` bytes. Raises UserError if the stream ends earlier."""
        content = self.read_up_to(amount, member)
        if len(content) < amount:
            where = f"inside {member!r}" if member else "without an end-of-archive marker"
            raise self.build_error(f"truncated: it ends {where}")
        return content

    def read_up_to(self, amount: int, member: str = "") -> bytes:
        content = self.file.read(amount)
        self.count += len(content)
        if self.count > self.max_bytes:
            raise self.build_error(self.violation, member)
        return content

    def skip(self, amount: int, member: str) -> None:
        while amount > 0:
            amount -= len(self.read(min(amount, SKIP_BYTES), member))

    def build_error(self, violation: str, member: str = "") -> UserError:
        return UserError(
            f"{self.path}: member {member!r}: {violation}" if member else f"{self.path}: {violation}"
        )


def _iterate_members(
    stream: _LimitedStream, limits: ArchiveLimits, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of the wanted members; validate all members and skip the others."""
    count = 0
    while (header := _read_header(stream)) is not None:
        count += 1
        name = header.name
        _validate_path(stream, name)
        if header.type not in (*_REGULAR_FILES, tarfile.DIRTYPE):
            raise stream.build_error(f"{_describe_type(header)}, expected only files and folders", name)
        if count > limits.members:
            raise stream.build_error(f"more than {limits.members:,} members", name)
        if not 0 <= header.size <= limits.member_bytes:
            raise stream.build_error(
                f"{header.size:,} bytes, more than the limit of {limits.member_bytes:,}", name
            )
        padding = -header.size % BLOCK
        name = name.removeprefix("./")
        if header.type == tarfile.DIRTYPE or not wanted(name):
            stream.skip(header.size + padding, name)
            continue
        content = stream.read(header.size, name)
        stream.skip(padding, name)
        yield name, content
    while stream.read_up_to(SKIP_BYTES):  # read to the end, where gzip verifies its checksum
        pass


def _read_header(stream: _LimitedStream) -> tarfile.TarInfo | None:
    """Return the header of the next member with its long name and size, or None at the end of the archive."""
    override: dict[str, str] = {}
    while True:
        block = stream.read_up_to(BLOCK) if stream.count == 0 else stream.read(BLOCK)
        if not any(block) and len(block) == BLOCK:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if stream.count == len(block):
                raise stream.build_error("not a tar archive, uncompressed or compressed with gzip") from None
            raise stream.build_error(f"corrupt header ({error}) at byte {stream.count - BLOCK:,}") from None
        if header.type not in (*_EXTENSIONS, *_LONG_NAMES):
            break
        override |= _read_extension(stream, header)
    if any(key.startswith("GNU.sparse.") for key in override):
        header.type = tarfile.GNUTYPE_SPARSE
    header.name = override.get("path", header.name)
    if "size" in override:
        readable = re.fullmatch(r"[0-9]{1,20}", override["size"])
        header.size = int(override["size"]) if readable else -1
    return header


def _read_extension(stream: _LimitedStream, header: tarfile.TarInfo) -> dict[str, str]:
    """Read an extended header and return the name and size of the next member. Global headers are ignored."""
    if not 0 <= header.size <= MAX_EXTENSION_BYTES:
        raise stream.build_error(
            f"an extended header of {header.size:,} bytes, more than the limit of {MAX_EXTENSION_BYTES:,}",
            header.name,
        )
    content = stream.read(header.size, header.name)
    stream.skip(-header.size % BLOCK, header.name)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return _parse_records(stream, header, content)
    return {}


def _parse_records(stream: _LimitedStream, header: tarfile.TarInfo, content: bytes) -> dict[str, str]:
    """Parse POSIX extended header records: `<length> <key>=<value>` and a line feed."""
    records: dict[str, str] = {}
    start = 0
    while match := re.match(rb"(\d{1,6}) ", content[start : start + 8]):
        record = content[start : start + int(match[1])]
        start += len(record)
        key, equals, value = record[match.end() : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            break
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    if content[start:].strip(b"\0"):
        raise stream.build_error("corrupt: an extended header cannot be parsed", header.name)
    return records


def _validate_path(stream: _LimitedStream, name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise stream.build_error("absolute path", name)
    if "\\" in name:
        raise stream.build_error("backslash in the path", name)
    if ".." in name.split("/"):
        raise stream.build_error("path outside the archive", name)


def _describe_type(header: tarfile.TarInfo) -> str:
    if header.issym():
        return "a symbolic link"
    if header.islnk():
        return "a hard link"
    if header.type == tarfile.GNUTYPE_SPARSE:
        return "a sparse file"
    return "a device or pipe" if header.isdev() else f"an entry of type {header.type!r}"
