"""Cache of downloaded files, their checksums, and the record of the files that a stage reads."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from sentiment.data.locations import make_file_name
from sentiment.errors import UserError
from sentiment.files import compute_file_md5, write_json
from sentiment.settings import load_settings, repository_root

logger = logging.getLogger(__name__)


HEX_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """Checksum of a file. MD5 detects accidental changes; only SHA-256 detects manipulation."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "md5:<hex>" or "sha256:<hex>". Raises UserError for any other text."""
        algorithm, _, value = text.strip().lower().partition(":")
        digits = HEX_DIGITS.get(algorithm)
        if digits is None or len(value) != digits or not set(value) <= set("0123456789abcdef"):
            raise UserError(f"checksum {text!r}: expected md5: with 32 or sha256: with 64 hexadecimal digits")
        return cls(algorithm, value)

    def find_mismatch(self, path: Path) -> str | None:
        """Return a message with both checksums if the file's checksum differs, else None."""
        with path.open("rb") as file:
            actual = hashlib.file_digest(
                file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            ).hexdigest()
        if actual == self.value:
            return None
        return f"wrong checksum: expected {self.algorithm}:{self.value}, found {self.algorithm}:{actual}"


FileRecords = dict[str, dict[str, int | str]]
"""Size (`bytes`) and MD5 (`md5`) of files, by location as in params.yaml without secrets."""

_active_records: ContextVar[FileRecords | None] = ContextVar("recorded", default=None)


@contextmanager
def recording_files() -> Iterator[FileRecords]:
    """Record the size and MD5 hash of every file of reviews that is read within the block."""
    records: FileRecords = {}
    token = _active_records.set(records)
    try:
        yield records
    finally:
        _active_records.reset(token)


def record_file(name: str, path: Path) -> None:
    """Record a file if `recording_files` is active.

    Raises:
        UserError: another file was recorded under the same name: the URLs differ only in their query, which
            is not recorded because it may contain a secret.
    """
    records = _active_records.get()
    if records is None:
        return
    record = compute_file_record(path)
    if records.get(name, record) != record:
        raise UserError(
            f"{name}: two URLs differ only in their query, so the origin of rows would be ambiguous"
        )
    records[name] = record


def compute_file_record(path: Path) -> dict[str, int | str]:
    """Return the size and MD5 hash of a file. DVC uses the same hash."""
    return {"bytes": path.stat().st_size, "md5": compute_file_md5(path)}


@dataclass(frozen=True)
class FileVersion:
    """Version of a file on a server."""

    size: int | None
    """Size in bytes; None if the server does not report it."""
    tag: str | None
    """ETag or modification date; None if the server reports neither."""


def get_cache_folder() -> Path:
    """Return DOWNLOAD_CACHE, or the default folder below the repository's root."""
    chosen = load_settings().download_cache
    return repository_root() / (chosen.expanduser() if chosen else Path(".cache", "downloads"))


@dataclass(frozen=True)
class CacheEntry:
    """Cached copy of a URL. File names contain hashes of URLs, because URLs may contain passwords."""

    folder: Path
    file: Path
    partial: Path
    version_file: Path
    """File with the version of `file` or `partial`, of which at most one exists."""

    @classmethod
    def from_url(cls, url: str, checksum: Checksum | None) -> "CacheEntry":
        """Return the entry of a URL. Its folder depends on the checksum, or on the URL if there is none."""
        url_hash = hashlib.sha256(url.encode()).hexdigest()[:32]
        key = f"{checksum.algorithm}-{checksum.value}" if checksum else f"address-{url_hash}"
        folder = get_cache_folder() / key
        return cls(
            folder,
            folder / make_file_name(url),
            folder / f".{url_hash}.partial",
            folder / f".{url_hash}.json",
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the entry against other processes, such as queued experiments."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"{self.file.name}: another process is downloading it; waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def has_file(self, size: int | None) -> bool:
        """Return whether the whole file is here. A file of another size was damaged, as by a power failure.

        Args:
            size: size of the file in bytes; None if it is not known.
        """
        return self.file.exists() and size in (None, self.file.stat().st_size)

    def load_version(self) -> FileVersion | None:
        """Return the stored version, or None if it is missing or cannot be parsed."""
        try:
            return FileVersion(**json.loads(self.version_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def start(self, version: FileVersion) -> None:
        """Start a download: clear the entry and store its version before the first byte is written."""
        self.clear()
        write_json(self.version_file, asdict(version))

    def count_partial_bytes(self) -> int:
        """Return the number of bytes downloaded so far."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def finish(self) -> Path:
        """Move the complete download to `file` and return its path."""
        self.partial.replace(self.file)
        return self.file

    def clear(self) -> None:
        """Delete the file, the partial download and the version."""
        for path in (self.file, self.partial, self.version_file):
            path.unlink(missing_ok=True)
