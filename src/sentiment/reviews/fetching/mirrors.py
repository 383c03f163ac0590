"""The one door: a file by its mirrors and its checksum."""

import errno
from collections.abc import Sequence
from pathlib import Path

from sentiment.errors import UserError
from sentiment.progress import say
from sentiment.reviews.fetching.addresses import local_path, shown
from sentiment.reviews.fetching.cache import Entry, cache_folder
from sentiment.reviews.fetching.checksums import Checksum
from sentiment.reviews.fetching.digests import record
from sentiment.reviews.fetching.downloading import download
from sentiment.reviews.fetching.remote import MirrorError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def fetch(urls: Sequence[str], checksum: str | None) -> Path:
    """Return the path of a file on this machine that is at one of `urls` and has the checksum.

    urls: mirrors, the preferred one first: anything that fsspec opens (https, s3, gs, ssh and more, some of
    them after `pip install "fsspec[s3]"` and the like); `file:` addresses and plain paths are used where they
    are. checksum: "md5:<hex>" or "sha256:<hex>", checked before this returns; None takes the file as it is.
    What was downloaded once is taken from the cache: by its checksum without asking anybody, else for as long
    as the server's size and tag are the same. A download that broke off, or was killed, goes on from there.
    Raises UserError that gives each mirror's reason, or says that the disk is full; no secrets of an address.
    """
    if not urls:
        raise UserError("no address to fetch the reviews from")
    path = _fetched(urls, None if checksum is None else Checksum.parse(checksum))
    record(shown(urls[0]), path)
    return path


def _fetched(urls: Sequence[str], wanted: Checksum | None) -> Path:
    cached = _cached(urls, wanted)
    if cached is not None:
        return cached
    reasons: list[str] = []
    for number, url in enumerate(urls, start=1):
        try:
            return _from_mirror(url, wanted)
        except MirrorError as error:
            reasons.append(f"{shown(url)}: {error}")
        if number < len(urls):
            say(f"{reasons[-1]}; trying mirror {number + 1} of {len(urls)}")
    if len(reasons) == 1:
        raise UserError(f"cannot fetch {reasons[0]}")
    raise UserError("\n".join([f"none of {len(urls)} mirrors gives the file", *(f"  {r}" for r in reasons)]))


def _cached(urls: Sequence[str], wanted: Checksum | None) -> Path | None:
    """Return a mirror's copy that has the checksum, whichever mirror it came from."""
    if wanted is None:
        return None
    files = (Entry.of(url, wanted).file for url in urls if local_path(url) is None)
    return next((file for file in files if file.is_file() and not wanted.fault(file)), None)


def _from_mirror(url: str, wanted: Checksum | None) -> Path:
    path = local_path(url)
    if path is not None:
        return _checked(path, wanted)
    entry = Entry.of(url, wanted)
    try:
        with entry.locked():
            return _cached([url], wanted) or _downloaded(url, entry, wanted)
    except OSError as error:  # the mirror's own are MirrorErrors: this is our disk
        if error.errno not in DISK_FULL:
            raise UserError(f"cannot keep a download in {cache_folder()}: {error.strerror}") from None
        entry.clear()
        raise UserError(
            f"the disk is full: no room in {cache_folder()} for {shown(url)}; "
            "make room, or name another folder in DOWNLOAD_CACHE"
        ) from None


def _checked(path: Path, wanted: Checksum | None) -> Path:
    if not path.is_file():
        raise MirrorError("a folder, not a file" if path.is_dir() else f"no such file ({path})")
    try:
        fault = wanted.fault(path) if wanted else None
    except OSError as error:
        raise MirrorError(f"cannot be read: {error.strerror}") from None
    if fault:
        raise MirrorError(fault)
    return path


def _downloaded(url: str, entry: Entry, wanted: Checksum | None) -> Path:
    in_pieces = download(url, entry, has_checksum=wanted is not None)
    fault = _fault(entry, wanted)
    if fault and in_pieces:  # the pieces may be of two versions; whole, the file may be right
        say(f"{shown(url)}: {fault}; starting over")
        entry.clear()
        download(url, entry, has_checksum=True)
        fault = _fault(entry, wanted)
    if fault:
        entry.clear()
        raise MirrorError(fault)
    return entry.finish() if entry.partial.exists() else entry.file


def _fault(entry: Entry, wanted: Checksum | None) -> str | None:
    return wanted.fault(entry.partial) if wanted else None
