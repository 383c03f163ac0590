"""The one door: a file by its mirrors and its checksum."""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sentiment.data.addresses import redact_url, to_local_path
from sentiment.data.download_cache import CacheEntry, Checksum, FileVersion, get_cache_folder, record_file
from sentiment.data.remote import MirrorError, RangeError, RemoteFile, TransientError
from sentiment.errors import UserError
from sentiment.logs import progress_bar

logger = logging.getLogger(__name__)


MAX_ATTEMPTS = 4
"""Tries in a row that bring not one byte before a mirror is given up."""
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""
MAX_WAIT = 30.0


def download(url: str, entry: CacheEntry, *, has_checksum: bool) -> bool:
    """Make `entry` hold the file: as `file` where that is still what the server has, else as `partial`.

    A download goes on where it broke off, if the server still has that version: by its tag or, where it gives
    none, by its size, which will do only if a checksum follows. Returns whether `partial` is of several
    pieces. Raises MirrorError when the mirror cannot or, after some tries, does not give the file.
    """
    retrying = Retrying(
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=MAX_WAIT),
        retry=retry_if_exception_type(TransientError),
        before_sleep=lambda state: _log_retry(url, state),
        reraise=True,
    )
    while True:
        before = entry.partial_bytes()
        try:
            return retrying(_attempt, url, entry, has_checksum)
        except TransientError:
            if entry.partial_bytes() <= before:
                raise


def _attempt(url: str, entry: CacheEntry, has_checksum: bool) -> bool:
    remote = RemoteFile(url)
    version = remote.version()
    known = entry.version() == version and (has_checksum or version.tag is not None)
    if known and entry.file.exists() and not has_checksum:
        return False
    have = entry.partial_bytes() if known else 0
    if version.size is not None and have >= version.size > 0:
        if have == version.size:
            return True
        have = 0
    if not have:
        entry.begin(version)
    try:
        start = _append_to_partial(remote, entry, version, have)
    except RangeError:
        entry.clear()
        raise
    found = entry.partial_bytes()
    if version.size is not None and found != version.size:
        if found > version.size:  # not a beginning of anything
            entry.clear()
        raise TransientError(f"ended after {found:,} bytes of {version.size:,}")
    return start > 0


def _append_to_partial(remote: RemoteFile, entry: CacheEntry, version: FileVersion, have: int) -> int:
    """Write what the server sends from byte `have`, or from 0 where it cannot; return which it was."""
    with remote.reading(have, version) as (start, chunks):
        size = "size unknown" if version.size is None else f"{version.size / 1e6:.1f} MB"
        at = f", from byte {start:,}" if start else ""
        logger.info(f"fetching {redact_url(remote.url)} ({size}{at})")
        with (
            entry.partial.open("ab") as file,
            progress_bar(entry.file.name, version.size, unit="bytes", done=start) as advance,
        ):
            file.truncate(start)
            for chunk in chunks:
                file.write(chunk)
                advance(len(chunk))
    return start


def _log_retry(url: str, state: RetryCallState) -> None:
    reason = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.info(f"{redact_url(url)}: {reason}; trying again in {wait:.0f} s")


DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}


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
    path = _fetch_mirrors(urls, None if checksum is None else Checksum.parse(checksum))
    record_file(redact_url(urls[0]), path)
    return path


def _fetch_mirrors(urls: Sequence[str], wanted: Checksum | None) -> Path:
    cached = _find_cached(urls, wanted)
    if cached is not None:
        return cached
    reasons: list[str] = []
    for number, url in enumerate(urls, start=1):
        try:
            return _fetch_from_mirror(url, wanted)
        except MirrorError as error:
            reasons.append(f"{redact_url(url)}: {error}")
        if number < len(urls):
            logger.info(f"{reasons[-1]}; trying mirror {number + 1} of {len(urls)}")
    if len(reasons) == 1:
        raise UserError(f"cannot fetch {reasons[0]}")
    raise UserError("\n".join([f"none of {len(urls)} mirrors gives the file", *(f"  {r}" for r in reasons)]))


def _find_cached(urls: Sequence[str], wanted: Checksum | None) -> Path | None:
    """Return a mirror's copy that has the checksum, whichever mirror it came from."""
    if wanted is None:
        return None
    files = (CacheEntry.of(url, wanted).file for url in urls if to_local_path(url) is None)
    return next((file for file in files if file.is_file() and not wanted.find_mismatch(file)), None)


def _fetch_from_mirror(url: str, wanted: Checksum | None) -> Path:
    path = to_local_path(url)
    if path is not None:
        return _verify_local_file(path, wanted)
    entry = CacheEntry.of(url, wanted)
    try:
        with entry.locked():
            return _find_cached([url], wanted) or _download_and_verify(url, entry, wanted)
    except OSError as error:  # the mirror's own are MirrorErrors: this is our disk
        if error.errno not in DISK_FULL_ERRORS:
            raise UserError(f"cannot keep a download in {get_cache_folder()}: {error.strerror}") from None
        entry.clear()
        raise UserError(
            f"the disk is full: no room in {get_cache_folder()} for {redact_url(url)}; "
            "make room, or name another folder in DOWNLOAD_CACHE"
        ) from None


def _verify_local_file(path: Path, wanted: Checksum | None) -> Path:
    if not path.is_file():
        raise MirrorError("a folder, not a file" if path.is_dir() else f"no such file ({path})")
    try:
        fault = wanted.find_mismatch(path) if wanted else None
    except OSError as error:
        raise MirrorError(f"cannot be read: {error.strerror}") from None
    if fault:
        raise MirrorError(fault)
    return path


def _download_and_verify(url: str, entry: CacheEntry, wanted: Checksum | None) -> Path:
    in_pieces = download(url, entry, has_checksum=wanted is not None)
    fault = _find_mismatch(entry, wanted)
    if fault and in_pieces:  # the pieces may be of two versions; whole, the file may be right
        logger.info(f"{redact_url(url)}: {fault}; starting over")
        entry.clear()
        download(url, entry, has_checksum=True)
        fault = _find_mismatch(entry, wanted)
    if fault:
        entry.clear()
        raise MirrorError(fault)
    return entry.finish() if entry.partial.exists() else entry.file


def _find_mismatch(entry: CacheEntry, wanted: Checksum | None) -> str | None:
    return wanted.find_mismatch(entry.partial) if wanted else None
