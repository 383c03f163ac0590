"""Members of a tar archive, read in a stream: nothing is unpacked to disk, nothing in it is trusted.

Python's `tarfile` opens such streams too, but it takes a damaged header or a missing end for the end of the
archive, and reads extended headers of any size into memory. So it parses single headers here, no more.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sentiment.errors import UserError
from sentiment.params.data import ArchiveLimits

BLOCK = tarfile.BLOCKSIZE
GZIP_MAGIC = b"\x1f\x8b"
SKIP_BYTES = 1 << 20
"""Bytes read at a time where a member is skipped."""
MIN_BYTES_FOR_RATIO = 1 << 20
"""Unpacked bytes that any archive may have: a tiny one is mostly padding and no bomb."""
MAX_EXTENSION_BYTES = 1 << 16
"""Most bytes of an extended header: it holds a name, and the longest path on Linux has 4,096."""

_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def stream_members(
    path: Path, limits: ArchiveLimits, wanted: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each regular file in a tar archive, gzipped or plain, in its order.

    wanted: which names to yield; the others are checked and passed over without being held in memory.
    Holds one member at a time. Nothing at all should be kept of an archive that raises on the way.
    Raises UserError that names the archive, the member and the rule: links, devices, sparse files, paths that
    lead out of the archive, more than `limits` allow; a truncated or damaged archive, or none at all.
    """
    try:
        with path.open("rb") as file:
            packed_bytes = path.stat().st_size
            if not packed_bytes:
                raise UserError(f"{path}: empty, zero bytes")
            gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            unpacked = gzip.GzipFile(fileobj=file) if gzipped else file
            stream = _Stream(path, unpacked, packed_bytes if gzipped else None, limits)
            yield from _iterate_members(stream, limits, wanted or (lambda _: True))
    except EOFError:
        raise UserError(f"{path}: truncated: the compressed data ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged: {error}") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path}: {error.strerror}") from None


class _Stream:
    """The unpacked bytes, counted against the limits as they come."""

    def __init__(
        self, path: Path, file: BinaryIO | gzip.GzipFile, packed_bytes: int | None, limits: ArchiveLimits
    ) -> None:
        self.path, self.file = path, file
        self.count = 0
        self.most, self.rule = limits.total_bytes, f"more than {limits.total_bytes:,} bytes when unpacked"
        if packed_bytes is not None:
            by_ratio = max(int(packed_bytes * limits.ratio), MIN_BYTES_FOR_RATIO)
            if by_ratio < self.most:
                self.most = by_ratio
                self.rule = f"more than {limits.ratio:g} times its size when unpacked"

    def read(self, amount: int, member: str = "") -> bytes:
        """Return exactly this many bytes."""
        content = self.read_up_to(amount, member)
        if len(content) < amount:
            where = f"inside {member!r}" if member else "without an end-of-archive mark"
            raise self.refusal(f"truncated: it ends {where}")
        return content

    def read_up_to(self, amount: int, member: str = "") -> bytes:
        content = self.file.read(amount)
        self.count += len(content)
        if self.count > self.most:
            raise self.refusal(self.rule, member)
        return content

    def skip(self, amount: int, member: str) -> None:
        while amount > 0:
            amount -= len(self.read(min(amount, SKIP_BYTES), member))

    def refusal(self, rule: str, member: str = "") -> UserError:
        return UserError(f"{self.path}: member {member!r}: {rule}" if member else f"{self.path}: {rule}")


def _iterate_members(
    stream: _Stream, limits: ArchiveLimits, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    count = 0
    while (header := _read_header(stream)) is not None:
        count += 1
        name = header.name
        _validate_path(stream, name)
        if header.type not in (*_PLAIN, tarfile.DIRTYPE):
            raise stream.refusal(f"{_describe_type(header)}, where only files and folders may be", name)
        if count > limits.members:
            raise stream.refusal(f"more than {limits.members:,} members", name)
        if not 0 <= header.size <= limits.member_bytes:
            raise stream.refusal(f"{header.size:,} bytes, of {limits.member_bytes:,} allowed", name)
        padding = -header.size % BLOCK
        name = name.removeprefix("./")
        if header.type == tarfile.DIRTYPE or not wanted(name):
            stream.skip(header.size + padding, name)
            continue
        content = stream.read(header.size, name)
        stream.skip(padding, name)
        yield name, content
    while stream.read_up_to(SKIP_BYTES):  # gzip's own checksum stands behind the last byte
        pass


def _read_header(stream: _Stream) -> tarfile.TarInfo | None:
    """Return the next member's header, long names and sizes resolved; None at the end-of-archive mark."""
    override: dict[str, str] = {}
    while True:
        block = stream.read_up_to(BLOCK) if stream.count == 0 else stream.read(BLOCK)
        if not any(block) and len(block) == BLOCK:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if stream.count == len(block):
                raise stream.refusal("not a tar archive, neither plain nor compressed by gzip") from None
            raise stream.refusal(f"damaged header ({error}) at byte {stream.count - BLOCK:,}") from None
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


def _read_extension(stream: _Stream, header: tarfile.TarInfo) -> dict[str, str]:
    """Read a block that only says more about the next member; global ones say nothing that is used."""
    if not 0 <= header.size <= MAX_EXTENSION_BYTES:
        raise stream.refusal(f"an extended header of {header.size:,} bytes", header.name)
    content = stream.read(header.size, header.name)
    stream.skip(-header.size % BLOCK, header.name)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return _parse_records(stream, header, content)
    return {}


def _parse_records(stream: _Stream, header: tarfile.TarInfo, content: bytes) -> dict[str, str]:
    """Parse POSIX extended records: `<length> <key>=<value>` and a line feed, the length counting all."""
    found: dict[str, str] = {}
    rest = io.BytesIO(content)
    while match := re.match(rb"(\d{1,6}) ", content[rest.tell() : rest.tell() + 8]):
        record = rest.read(int(match[1]))
        key, equals, value = record[match.end() : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            break
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    if content[rest.tell() :].strip(b"\0"):
        raise stream.refusal("damaged: an extended header that cannot be read", header.name)
    return found


def _validate_path(stream: _Stream, name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise stream.refusal("an absolute path", name)
    if "\\" in name:
        raise stream.refusal("a backslash in its path", name)
    if ".." in name.split("/"):
        raise stream.refusal("a path that leads out of the archive", name)


def _describe_type(header: tarfile.TarInfo) -> str:
    if header.issym():
        return "a symbolic link"
    if header.islnk():
        return "a hard link"
    if header.type == tarfile.GNUTYPE_SPARSE:
        return "a sparse file"
    return "a device or pipe" if header.isdev() else f"an entry of type {header.type!r}"
