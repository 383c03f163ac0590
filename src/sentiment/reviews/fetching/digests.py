"""What the files were that the reviews came from: their sizes and MD5s, for `metrics/download.json`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sentiment.errors import UserError
from sentiment.hashing import file_md5

Digests = dict[str, dict[str, int | str]]
"""By address as written in params.yaml, without secrets: bytes and md5."""

_recorded: ContextVar[Digests | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[Digests]:
    """Collect the digest of every file that is opened for reviews within the block."""
    digests: Digests = {}
    token = _recorded.set(digests)
    try:
        yield digests
    finally:
        _recorded.reset(token)


def record(name: str, path: Path) -> None:
    """Add a file to the record, where one is kept.

    Raises UserError where another file of that name is there: addresses may differ in their query alone,
    which may hold a secret and is not recorded.
    """
    digests = _recorded.get()
    if digests is None:
        return
    found = digest(path)
    if digests.get(name, found) != found:
        raise UserError(f"{name}: two addresses differ in their query alone, so rows could not be told apart")
    digests[name] = found


def digest(path: Path) -> dict[str, int | str]:
    """Return a file's size and MD5, which is DVC's hash too."""
    return {"bytes": path.stat().st_size, "md5": file_md5(path)}
