"""Download of files from mirrors: resumed, retried, verified by checksum and cached."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from sentiment.data.download_cache import CacheEntry, Checksum, FileVersion, get_cache_folder, record_file
from sentiment.data.locations import redact_url, to_local_path
from sentiment.data.remote import MirrorError, RangeError, RemoteFile, TransientError
from sentiment.errors import DISK_FULL_ERRORS, UserError
from sentiment.logs import progress_bar

logger = logging.getLogger(__name__)


MAX_ATTEMPTS = 4
"""Number of consecutive attempts without a new byte after which the next mirror is tried."""
FIRST_WAIT = 1.0
"""Seconds before the second attempt; each additional wait is twice as long."""
MAX_WAIT = 30.0
"""Maximum seconds between two attempts."""


def download(url: str, entry: CacheEntry, *, has_checksum: bool) -> bool:
    """Download a URL to `entry.partial`, unless `entry.file` is already the current version.

    An interrupted download is resumed if the server still has that version. Versions are compared by tag, or
    only by size if the server sends no tag, which is sufficient if a checksum is verified afterwards.

    Args:
        url: URL of the file on a mirror.
        entry: cache entry of the file.
        has_checksum: whether the file is verified by a checksum afterwards.

    Returns:
        Whether the download was resumed, so that `partial` may consist of parts of two versions.

    Raises:
        MirrorError: the mirror does not serve the file, even after retries.
    """
    retrying = Retrying(
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=MAX_WAIT),
        retry=retry_if_exception_type(TransientError),
        before_sleep=lambda state: _log_retry(url, state),
        reraise=True,
    )
    while True:
        bytes_before = entry.count_partial_bytes()
        try:
            return retrying(_try_download, url, entry, has_checksum)
        except TransientError:
            if entry.count_partial_bytes() <= bytes_before:
                raise


def _try_download(url: str, entry: CacheEntry, has_checksum: bool) -> bool:
    """Make one attempt to download a URL, as `download` does with retries."""
    remote = RemoteFile(url)
    version = remote.request_version()
    is_current = entry.load_version() == version and (has_checksum or version.tag is not None)
    if is_current and not has_checksum and entry.has_file(version.size):
        return False
    offset = entry.count_partial_bytes() if is_current else 0
    if version.size is not None and offset >= version.size > 0:
        if offset == version.size:
            return True
        offset = 0
    if not offset:
        entry.start(version)
    try:
        start = _append_to_partial(remote, entry, version, offset)
    except RangeError:
        entry.clear()
        raise
    received = entry.count_partial_bytes()
    if version.size is not None and received != version.size:
        if received > version.size:  # a file that is too long cannot be resumed
            entry.clear()
        raise TransientError(f"the connection closed: received {received:,} bytes, expected {version.size:,}")
    return start > 0


def _append_to_partial(remote: RemoteFile, entry: CacheEntry, version: FileVersion, offset: int) -> int:
    """Append the bytes that start at `offset`. Return the actual start: 0 if the server cannot resume."""
    with remote.open_stream(offset, version) as (start, chunks):
        size = "size unknown" if version.size is None else f"{version.size / 1e6:.1f} MB"
        resumed = f", from byte {start:,}" if start else ""
        logger.info(f"fetching {redact_url(remote.url)} ({size}{resumed})")
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
    """Log why an attempt failed and when the next one starts."""
    reason = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.warning(f"{redact_url(url)}: {reason}; retrying in {wait:.0f} s")


def fetch(urls: Sequence[str], checksum: str | None) -> Path:
    """Return the local path of a file, which is downloaded if it is not in the cache.

    A cached file is used without a request if it has the checksum. Without a checksum, it is used as long as
    the size and tag on the server do not change. Interrupted downloads are resumed.

    Args:
        urls: mirrors in order of preference: URLs of any protocol that fsspec supports (https, s3, gs, ssh
            and others, some after `pip install "fsspec[s3]"` or similar), `file:` URLs or paths. Local files
            are not copied.
        checksum: "md5:<hex>" or "sha256:<hex>", or None if the file is not verified.

    Raises:
        UserError: no mirror serves the file, or the disk is full. The message has the reason of each mirror,
            and no secrets of the URLs.
    """
    if not urls:
        raise UserError("no URL to fetch the reviews from")
    path = _fetch_from_any_mirror(urls, None if checksum is None else Checksum.parse(checksum))
    record_file(redact_url(urls[0]), path)
    return path


def _fetch_from_any_mirror(urls: Sequence[str], checksum: Checksum | None) -> Path:
    """Return a cached file, or fetch it from the first mirror that serves it."""
    cached = _find_cached(urls, checksum)
    if cached is not None:
        return cached
    reasons: list[str] = []
    for number, url in enumerate(urls, start=1):
        try:
            return _fetch_from_mirror(url, checksum)
        except MirrorError as error:
            reasons.append(f"{redact_url(url)}: {error}")
        if number < len(urls):
            logger.warning(f"{reasons[-1]}; trying mirror {number + 1} of {len(urls)}")
    if len(reasons) == 1:
        raise UserError(f"cannot fetch {reasons[0]}")
    raise UserError("\n".join([f"none of {len(urls)} mirrors serves the file", *(f"  {r}" for r in reasons)]))


def _find_cached(urls: Sequence[str], checksum: Checksum | None) -> Path | None:
    """Return a cached file with the checksum, from any mirror, or None."""
    if checksum is None:
        return None
    files = (CacheEntry.from_url(url, checksum).file for url in urls if to_local_path(url) is None)
    return next((file for file in files if file.is_file() and not checksum.find_mismatch(file)), None)


def _fetch_from_mirror(url: str, checksum: Checksum | None) -> Path:
    """Return the path of a local file, or of a cached or new download. Raises MirrorError."""
    path = to_local_path(url)
    if path is not None:
        return _verify_local_file(path, checksum)
    entry = CacheEntry.from_url(url, checksum)
    try:
        with entry.lock():
            return _find_cached([url], checksum) or _download_and_verify(url, entry, checksum)
    except OSError as error:  # the local disk failed; errors of the mirror are MirrorErrors
        if error.errno not in DISK_FULL_ERRORS:
            raise UserError(
                f"cannot write to the download cache {get_cache_folder()}: {error.strerror}"
            ) from None
        entry.clear()
        raise UserError(
            f"the disk is full: cannot write {redact_url(url)} to {get_cache_folder()}; "
            "free some space, or set DOWNLOAD_CACHE to another folder"
        ) from None


def _verify_local_file(path: Path, checksum: Checksum | None) -> Path:
    if not path.is_file():
        raise MirrorError("a folder, not a file" if path.is_dir() else f"no such file ({path})")
    try:
        mismatch = checksum.find_mismatch(path) if checksum else None
    except OSError as error:
        raise MirrorError(f"cannot be read: {error.strerror}") from None
    if mismatch:
        raise MirrorError(mismatch)
    return path


def _download_and_verify(url: str, entry: CacheEntry, checksum: Checksum | None) -> Path:
    """Download a URL and verify its checksum; restart a resumed download once if it differs."""
    resumed = download(url, entry, has_checksum=checksum is not None)
    mismatch = _find_mismatch(entry, checksum)
    if mismatch and resumed:  # the parts may come from two versions; a full download may be correct
        logger.warning(f"{redact_url(url)}: {mismatch}; restarting the download")
        entry.clear()
        download(url, entry, has_checksum=True)
        mismatch = _find_mismatch(entry, checksum)
    if mismatch:
        entry.clear()
        raise MirrorError(mismatch)
    return entry.finish() if entry.partial.exists() else entry.file


def _find_mismatch(entry: CacheEntry, checksum: Checksum | None) -> str | None:
    return checksum.find_mismatch(entry.partial) if checksum else None
