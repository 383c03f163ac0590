"""From a pattern to the addresses that match it."""

import os
from glob import has_magic
from pathlib import Path

from sentiment.errors import UserError
from sentiment.reviews.fetching.addresses import local_path, scheme_of, shown, without_secrets
from sentiment.settings import repository_root


def matching(address: str) -> list[str]:
    """Return the addresses that a path or a pattern (`*`, `?`, `[…]`, `**`) stands for, in order of name.

    An address without a pattern stands for itself; so does any on the web, which has no listings.
    What a relative pattern stands for is relative too: such names do not differ from one copy of the
    repository to the next. Raises UserError where a pattern matches nothing, or its place cannot be listed.
    """
    if not has_magic(address) or scheme_of(address) in ("http", "https"):
        return [address]
    local = local_path(address)
    found = _remote_matches(address) if local is None else _local_matches(local)
    if local is not None and not Path(address).expanduser().is_absolute() and not scheme_of(address):
        found = [os.path.relpath(path, repository_root()) for path in found]
    if not found:
        raise UserError(f"{shown(address)}: matches no file")
    return sorted(found)


def _local_matches(pattern: Path) -> list[str]:
    return [str(path) for path in Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))]


def _remote_matches(address: str) -> list[str]:
    from fsspec.core import url_to_fs

    try:
        system, pattern = url_to_fs(address)
        return [system.unstrip_protocol(path) for path in system.glob(pattern)]
    except Exception as error:  # each file system has errors of its own
        raise UserError(
            f"{shown(address)}: cannot be listed: {without_secrets(str(error), address)}"
        ) from None
