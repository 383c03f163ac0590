"""From a mirror into the cache: resumed where it broke off, tried again where that may help."""

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sentiment.progress import counting, say
from sentiment.reviews.fetching.addresses import shown
from sentiment.reviews.fetching.cache import Entry, Version
from sentiment.reviews.fetching.remote import PassingError, RangeError, Remote

ATTEMPTS = 4
"""Tries in a row that bring not one byte before a mirror is given up."""
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""
LONGEST_WAIT = 30.0


def download(url: str, entry: Entry, *, has_checksum: bool) -> bool:
    """Make `entry` hold the file: as `file` where that is still what the server has, else as `partial`.

    A download goes on where it broke off, if the server still has that version: by its tag or, where it gives
    none, by its size, which will do only if a checksum follows. Returns whether `partial` is of several
    pieces. Raises MirrorError when the mirror cannot or, after some tries, does not give the file.
    """
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=retry_if_exception_type(PassingError),
        before_sleep=lambda state: _say_why(url, state),
        reraise=True,
    )
    while True:
        before = entry.partial_bytes()
        try:
            return retrying(_attempt, url, entry, has_checksum)
        except PassingError:
            if entry.partial_bytes() <= before:
                raise


def _attempt(url: str, entry: Entry, has_checksum: bool) -> bool:
    remote = Remote(url)
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
        start = _append(remote, entry, version, have)
    except RangeError:
        entry.clear()
        raise
    found = entry.partial_bytes()
    if version.size is not None and found != version.size:
        if found > version.size:  # not a beginning of anything
            entry.clear()
        raise PassingError(f"ended after {found:,} bytes of {version.size:,}")
    return start > 0


def _append(remote: Remote, entry: Entry, version: Version, have: int) -> int:
    """Write what the server sends from byte `have`, or from 0 where it cannot; return which it was."""
    with remote.reading(have, version) as (start, chunks):
        size = "size unknown" if version.size is None else f"{version.size / 1e6:.1f} MB"
        at = f", from byte {start:,}" if start else ""
        say(f"fetching {shown(remote.url)} ({size}{at})")
        with (
            entry.partial.open("ab") as file,
            counting(entry.file.name, version.size, unit="bytes", done=start) as advance,
        ):
            file.truncate(start)
            for chunk in chunks:
                file.write(chunk)
                advance(len(chunk))
    return start


def _say_why(url: str, state: RetryCallState) -> None:
    reason = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    say(f"{shown(url)}: {reason}; trying again in {wait:.0f} s")
