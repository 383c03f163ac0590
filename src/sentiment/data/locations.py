"""Locations of files: local paths, URLs and glob patterns."""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape, has_magic
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import url2pathname

from sentiment.errors import UserError
from sentiment.settings import repository_root

_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")
_UNSAFE_IN_NAMES = re.compile(r"[^\w.-]+")
MAX_NAME_LENGTH = 100


def redact_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, for messages and logs."""
    parts = _parse_url(url)
    if parts is None or ("@" in parts.netloc and "@" in parts.path):  # a password may contain a slash
        return f"{url.partition('://')[0]}://…"
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def redact_urls_in(text: str, url: str) -> str:
    """Redact `url` and all other URLs in an error message of a library."""
    return _URL_IN_TEXT.sub(lambda match: redact_url(match[0]), text.replace(url, redact_url(url)))


def to_local_path(url: str) -> Path | None:
    """Return the local path that a `file:` URL or a plain path refers to, or None for other URLs.

    A relative path that does not exist in the working directory is resolved against the repository's root,
    because DVC may run the stage in a copy without the files that git and DVC do not track.

    Raises:
        UserError: a `file:` URL has a host, which usually is the first folder of a path with a slash missing.
    """
    scheme = get_scheme(url)
    if scheme and scheme != "file":
        return None
    path = Path(url2pathname(parse_file_url(url)) if scheme else url)
    if not scheme and not os.path.lexists(repository_root() / path):  # a file name may start with ~
        path = expand_home(path)
    return path if path.is_absolute() or path.exists() else repository_root() / path


def expand_home(path: Path) -> Path:
    """Expand a leading `~` or `~name` to that user's home folder, if the user exists."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def parse_file_url(url: str) -> str:
    """Return the path in a `file:` URL, still percent-encoded.

    `?` and `#` are part of the path, because they occur in patterns and file names; a query is not supported.
    """
    path = url.partition(":")[2]
    if not path.startswith("//"):
        return path
    host, slash, path_after_host = path[2:].partition("/")
    if host not in ("", "localhost"):
        raise UserError(f"{url}: has the host {host}; the URL of a local file is file:///folder/name")
    return slash + path_after_host


def get_scheme(url: str) -> str:
    """Return the scheme, such as `https`, or an empty string for a path, even one with a colon or drive."""
    parts = _parse_url(url)
    scheme = parts.scheme if parts else url.partition("://")[0]
    return scheme if len(scheme) > 1 and ("://" in url or scheme == "file") else ""


def make_file_name(url: str) -> str:
    """Return the last path component of a URL as a file name that is valid on every file system."""
    parts = _parse_url(url)
    last = unquote(parts.path if parts else url).rstrip("/").rpartition("/")[2]
    return _UNSAFE_IN_NAMES.sub("_", last)[-MAX_NAME_LENGTH:].lstrip(".") or "file"


def _parse_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # such as an unclosed bracket or a port that is not a number
        return None
    return parts


RECURSIVE_WILDCARD = "**"
_ESCAPED = re.compile(r"\[([*?[])\]")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def expand_pattern(location: str) -> list[str]:
    """Return the files that match a path or glob pattern (`*`, `?`, `[…]`, `**`), sorted.

    A path without a pattern, the path of an existing file and an HTTP URL, which has no directory listing,
    are returned unchanged. A pattern is matched below the repository's root, or below the existing folders
    at its beginning; brackets in the names of these folders are not part of the pattern. As in a shell,
    hidden files and files in hidden folders match only if the pattern has the leading dot. Matches of a
    relative pattern are relative paths, so that they are equal in every copy of the repository.

    Raises:
        UserError: a pattern matches no file, or the files cannot be listed.
    """
    if not has_magic(location) or get_scheme(location) in ("http", "https"):
        return [location]
    literal_path = to_local_path(location)
    if literal_path is not None and os.path.lexists(literal_path):
        return [location]
    matches = _expand_remote(location) if literal_path is None else _expand_local(location)
    if not matches:
        raise UserError(f"{redact_url(location)}: matches no file")
    return sorted(matches)


def _expand_local(location: str) -> list[str]:
    """Return the matching paths, relative to the repository's root if the pattern is relative."""
    # A percent-encoded bracket is part of a name, not of the pattern.
    pattern = (
        _ENCODED.sub(lambda match: escape(unquote(match[0])), parse_file_url(location))
        if get_scheme(location)
        else str(expand_home(Path(location)))
    )
    root = repository_root()
    is_absolute = Path(pattern).is_absolute()
    base = Path(Path(pattern).anchor) if is_absolute else root
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    while parts and (folder := _find_folder(base, parts[0])):
        base = folder
        del parts[0]
    if not parts:
        return []
    paths = [path for path in _glob(base, parts, location) if not path.is_dir()]
    return [str(path) if is_absolute else os.path.relpath(path, root) for path in paths]


def _glob(base: Path, parts: list[str], location: str) -> list[Path]:
    """Return the files and folders below `base` that match a pattern, given by its path components."""
    if parts[-1] == RECURSIVE_WILDCARD:
        parts = [*parts, "*"]  # all files in subfolders, as in newer versions of pathlib
    if any(RECURSIVE_WILDCARD in part and part != RECURSIVE_WILDCARD for part in parts):
        # pathlib raises ValueError for `**.csv`, but from Python 3.13 on it matches like `*.csv`.
        raise UserError(f"{redact_url(location)}: invalid pattern: '**' can only be an entire path component")
    try:
        matches = set(base.glob("/".join(parts)))
    except ValueError as error:
        raise UserError(f"{redact_url(location)}: {error}") from None
    return [path for path in matches if _is_match(path.relative_to(base).parts, parts)]


def _is_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern by component. A leading dot must be matched explicitly."""
    if not pattern:
        return not parts
    first, *remaining = pattern
    if first == RECURSIVE_WILDCARD:
        if _is_match(parts, remaining):
            return True
        return bool(parts) and not parts[0].startswith(".") and _is_match(parts[1:], pattern)
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(parts[0], first) and _is_match(parts[1:], remaining)


def _find_folder(base: Path, segment: str) -> Path | None:
    """Return the folder with the name `segment`, unescaped or escaped by `glob.escape`, or None."""
    names = (segment, _ESCAPED.sub(r"\1", segment))
    return next((base / name for name in names if (base / name).is_dir()), None)


def _expand_remote(location: str) -> list[str]:
    """Return the URLs of the files on a remote file system that match a pattern."""
    from fsspec.core import url_to_fs

    try:
        system, pattern = url_to_fs(location)
        if system.isfile(pattern):
            return [location]
        listed = system.glob(pattern, detail=True)
    except Exception as error:  # each file system raises its own exceptions
        raise UserError(
            f"{redact_url(location)}: cannot list files: {redact_urls_in(str(error), location)}"
        ) from None
    segments = pattern.strip("/").split("/")
    if segments[-1] == RECURSIVE_WILDCARD:
        segments.append("*")
    files = [
        path
        for path, details in listed.items()
        if details.get("type") != "directory" and _is_match(path.strip("/").split("/"), segments)
    ]
    if location.endswith(pattern):  # the part before the pattern may have a host, unlike the listed paths
        return [location.removesuffix(pattern) + path for path in files]
    return [system.unstrip_protocol(path) for path in files]
