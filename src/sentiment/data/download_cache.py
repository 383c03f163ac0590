"""Downloaded files on this machine: their checksums, their versions and their recorded hashes."""

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

from sentiment.data.addresses import make_file_name
from sentiment.errors import UserError
from sentiment.files import file_md5, write_json
from sentiment.settings import load_settings, repository_root

logger = logging.getLogger(__name__)


HEX_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """A hash of a whole file. MD5 notices accidents; against ill will only SHA-256 helps."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "md5:<hex>" or "sha256:<hex>"; raises UserError for anything else."""
        algorithm, _, value = text.strip().lower().partition(":")
        digits = HEX_DIGITS.get(algorithm)
        if digits is None or len(value) != digits or not set(value) <= set("0123456789abcdef"):
            raise UserError(
                f"checksum {text!r}: expected md5: and 32 hexadecimal digits, or sha256: and 64 of them"
            )
        return cls(algorithm, value)

    def find_mismatch(self, path: Path) -> str | None:
        """Say how the file differs, None where it is the right one."""
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            ).hexdigest()
        if found == self.value:
            return None
        return f"wrong checksum: expected {self.algorithm}:{self.value}, found {self.algorithm}:{found}"


FileRecords = dict[str, dict[str, int | str]]
"""By address as written in params.yaml, without secrets: bytes and md5."""

_recorded: ContextVar[FileRecords | None] = ContextVar("recorded", default=None)


@contextmanager
def recording_files() -> Iterator[FileRecords]:
    """Collect the digest of every file that is opened for reviews within the block."""
    digests: FileRecords = {}
    token = _recorded.set(digests)
    try:
        yield digests
    finally:
        _recorded.reset(token)


def record_file(name: str, path: Path) -> None:
    """Add a file to the record, where one is kept.

    Raises UserError where another file of that name is there: addresses may differ in their query alone,
    which may hold a secret and is not recorded.
    """
    digests = _recorded.get()
    if digests is None:
        return
    found = compute_file_record(path)
    if digests.get(name, found) != found:
        raise UserError(f"{name}: two addresses differ in their query alone, so rows could not be told apart")
    digests[name] = found


def compute_file_record(path: Path) -> dict[str, int | str]:
    """Return a file's size and MD5, which is DVC's hash too."""
    return {"bytes": path.stat().st_size, "md5": file_md5(path)}


@dataclass(frozen=True)
class FileVersion:
    """How a server tells one content of an address from the next."""

    size: int | None
    tag: str | None
    """Its ETag, else its date; None where the server gives neither."""


def get_cache_folder() -> Path:
    """Return where downloads are kept: below the repository's root unless DOWNLOAD_CACHE names a folder."""
    chosen = load_settings().download_cache
    return repository_root() / (chosen.expanduser() if chosen else Path(".cache", "downloads"))


@dataclass(frozen=True)
class CacheEntry:
    """One mirror's copy of a file. Names on disk hold hashes of addresses: addresses may hold passwords."""

    folder: Path
    file: Path
    partial: Path
    version_file: Path
    """Version that `file` or `partial` is of, whichever is there; both are never there."""

    @classmethod
    def of(cls, url: str, checksum: Checksum | None) -> "CacheEntry":
        """Return the place of an address: keyed by the checksum where there is one, else by the address."""
        address = hashlib.sha256(url.encode()).hexdigest()[:32]
        key = f"{checksum.algorithm}-{checksum.value}" if checksum else f"address-{address}"
        folder = get_cache_folder() / key
        return cls(
            folder, folder / make_file_name(url), folder / f".{address}.partial", folder / f".{address}.json"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes, such as queued experiments, from writing the same download."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"{self.file.name}: another process is fetching it; waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def version(self) -> FileVersion | None:
        """Return what the record says, None where there is none that can be read."""
        try:
            return FileVersion(**json.loads(self.version_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def begin(self, version: FileVersion) -> None:
        """Make room for a download of this version. The record stands before the first byte does."""
        self.clear()
        write_json(self.version_file, asdict(version))

    def partial_bytes(self) -> int:
        """Return how much of the download is here."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def finish(self) -> Path:
        """Make the download the cached file."""
        self.partial.replace(self.file)
        return self.file

    def clear(self) -> None:
        """Remove file, download and record."""
        for path in (self.file, self.partial, self.version_file):
            path.unlink(missing_ok=True)
