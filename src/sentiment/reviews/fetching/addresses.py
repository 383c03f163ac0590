"""Addresses of files: which are on this machine, what they are called, how to show them to anyone."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import url2pathname

from sentiment.errors import UserError
from sentiment.settings import repository_root

_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")
_UNSAFE_IN_NAMES = re.compile(r"[^\w.-]+")
LONGEST_NAME = 100


def shown(url: str) -> str:
    """Return an address without user, password, query or fragment: fit for a message or a log."""
    parts = _split(url)
    if parts is None or ("@" in parts.netloc and "@" in parts.path):  # perhaps a password with a slash in it
        return f"{url.partition('://')[0]}://…"
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """Return a library's message with every address in it as `shown` gives it."""
    return _IN_TEXT.sub(lambda match: shown(match[0]), text.replace(url, shown(url)))


def local_path(url: str) -> Path | None:
    """Return the path behind a `file:` address or a plain path, None for what lies elsewhere.

    A relative path that does not exist here is taken from the repository's root: DVC may run the stage in a
    copy, where files that git and DVC do not know are missing. Raises UserError where a `file:` address names
    a host, which most often is the first folder of a path with a slash too few.
    """
    scheme = scheme_of(url)
    if scheme and scheme != "file":
        return None
    path = Path(url2pathname(file_path(url)) if scheme else url)
    if not scheme and not os.path.lexists(repository_root() / path):  # a file may be called `~x.csv`
        path = at_home(path)
    return path if path.is_absolute() or path.exists() else repository_root() / path


def at_home(path: Path) -> Path:
    """Return a path with a leading `~` or `~name` replaced by that user's folder, where there is one."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def file_path(url: str) -> str:
    """Return the path in a `file:` address, percent-encoded as it stands there.

    `?` and `#` are a part of it, as characters of patterns and names: such an address has no query.
    """
    path = url.partition(":")[2]
    if not path.startswith("//"):
        return path
    host, slash, rest = path[2:].partition("/")
    if host not in ("", "localhost"):
        raise UserError(f"{url}: names the host {host}; a file of this machine is file:///folder/name")
    return slash + rest


def scheme_of(url: str) -> str:
    """Return `https`, `s3` and the like; nothing for a path, with a colon or drive letter in it too."""
    parts = _split(url)
    scheme = parts.scheme if parts else url.partition("://")[0]
    return scheme if len(scheme) > 1 and ("://" in url or scheme == "file") else ""


def file_name(url: str) -> str:
    """Return the last part of an address as a name that every file system takes."""
    parts = _split(url)
    last = unquote(parts.path if parts else url).rstrip("/").rpartition("/")[2]
    return _UNSAFE_IN_NAMES.sub("_", last)[-LONGEST_NAME:].lstrip(".") or "file"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # such as a bracket that is not closed, a port that is no number
        return None
    return parts
