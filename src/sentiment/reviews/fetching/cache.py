"""Downloads on this machine: whole files, files on their way, and which version each of them is of."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sentiment.outputs import write_json
from sentiment.progress import say
from sentiment.reviews.fetching.addresses import file_name
from sentiment.reviews.fetching.checksums import Checksum
from sentiment.settings import load_settings, repository_root


@dataclass(frozen=True)
class Version:
    """How a server tells one content of an address from the next."""

    size: int | None
    tag: str | None
    """Its ETag, else its date; None where the server gives neither."""


def cache_folder() -> Path:
    """Return where downloads are kept: below the repository's root unless DOWNLOAD_CACHE names a folder."""
    chosen = load_settings().download_cache
    return repository_root() / (chosen.expanduser() if chosen else Path(".cache", "downloads"))


@dataclass(frozen=True)
class Entry:
    """One mirror's copy of a file. Names on disk hold hashes of addresses: addresses may hold passwords."""

    folder: Path
    file: Path
    partial: Path
    record: Path
    """Version that `file` or `partial` is of, whichever is there; both are never there."""

    @classmethod
    def of(cls, url: str, checksum: Checksum | None) -> "Entry":
        """Return the place of an address: keyed by the checksum where there is one, else by the address."""
        address = hashlib.sha256(url.encode()).hexdigest()[:32]
        key = f"{checksum.algorithm}-{checksum.value}" if checksum else f"address-{address}"
        folder = cache_folder() / key
        return cls(
            folder, folder / file_name(url), folder / f".{address}.partial", folder / f".{address}.json"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes, such as queued experiments, from writing the same download."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{self.file.name}: another process is fetching it; waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def version(self) -> Version | None:
        """Return what the record says, None where there is none that can be read."""
        try:
            return Version(**json.loads(self.record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        """Make room for a download of this version. The record stands before the first byte does."""
        self.clear()
        write_json(self.record, asdict(version))

    def partial_bytes(self) -> int:
        """Return how much of the download is here."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def finish(self) -> Path:
        """Make the download the cached file."""
        self.partial.replace(self.file)
        return self.file

    def clear(self) -> None:
        """Remove file, download and record."""
        for path in (self.file, self.partial, self.record):
            path.unlink(missing_ok=True)
