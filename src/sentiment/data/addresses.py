"""Addresses of files: local paths and URLs, how to display them, and patterns that match several."""

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
    """Return an address without user, password, query or fragment: fit for a message or a log."""
    parts = _parse_url(url)
    if parts is None or ("@" in parts.netloc and "@" in parts.path):  # perhaps a password with a slash in it
        return f"{url.partition('://')[0]}://…"
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def redact_urls_in(text: str, url: str) -> str:
    """Return a library's message with every address in it as `shown` gives it."""
    return _URL_IN_TEXT.sub(lambda match: redact_url(match[0]), text.replace(url, redact_url(url)))


def to_local_path(url: str) -> Path | None:
    """Return the path behind a `file:` address or a plain path, None for what lies elsewhere.

    A relative path that does not exist here is taken from the repository's root: DVC may run the stage in a
    copy, where files that git and DVC do not know are missing. Raises UserError where a `file:` address names
    a host, which most often is the first folder of a path with a slash too few.
    """
    scheme = get_scheme(url)
    if scheme and scheme != "file":
        return None
    path = Path(url2pathname(parse_file_url(url)) if scheme else url)
    if not scheme and not os.path.lexists(repository_root() / path):  # a file may be called `~x.csv`
        path = expand_home(path)
    return path if path.is_absolute() or path.exists() else repository_root() / path


def expand_home(path: Path) -> Path:
    """Return a path with a leading `~` or `~name` replaced by that user's folder, where there is one."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def parse_file_url(url: str) -> str:
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


def get_scheme(url: str) -> str:
    """Return `https`, `s3` and the like; nothing for a path, with a colon or drive letter in it too."""
    parts = _parse_url(url)
    scheme = parts.scheme if parts else url.partition("://")[0]
    return scheme if len(scheme) > 1 and ("://" in url or scheme == "file") else ""


def make_file_name(url: str) -> str:
    """Return the last part of an address as a name that every file system takes."""
    parts = _parse_url(url)
    last = unquote(parts.path if parts else url).rstrip("/").rpartition("/")[2]
    return _UNSAFE_IN_NAMES.sub("_", last)[-MAX_NAME_LENGTH:].lstrip(".") or "file"


def _parse_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # such as a bracket that is not closed, a port that is no number
        return None
    return parts


RECURSIVE_WILDCARD = "**"
_ESCAPED = re.compile(r"\[([*?[])\]")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def expand_pattern(address: str) -> list[str]:
    """Return the addresses of the files that a path or a pattern (`*`, `?`, `[…]`, `**`) stands for, sorted.

    An address without a pattern, or that is the path of an existing file, stands for itself; so does any on
    the web, which has no listings. A pattern applies below the repository's root, or below the folders that
    it begins with and that exist by just that name: never to a name that happens to hold a bracket. Hidden
    files, and those in hidden folders, match only where the pattern writes the leading dot, as in a shell.
    What a relative pattern stands for is relative too: such names do not differ from one copy of the
    repository to the next. Raises UserError where a pattern matches nothing, or its place cannot be listed.
    """
    if not has_magic(address) or get_scheme(address) in ("http", "https"):
        return [address]
    literal = to_local_path(address)
    if literal is not None and os.path.lexists(literal):
        return [address]
    found = _expand_remote(address) if literal is None else _expand_local(address)
    if not found:
        raise UserError(f"{redact_url(address)}: matches no file")
    return sorted(found)


def _expand_local(address: str) -> list[str]:
    """Return the paths of files, relative to the repository's root where the pattern is relative."""
    # An encoded bracket is a letter of a name, not a part of the pattern.
    pattern = (
        _ENCODED.sub(lambda match: escape(unquote(match[0])), parse_file_url(address))
        if get_scheme(address)
        else str(expand_home(Path(address)))
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
    paths = [path for path in _glob(base, parts, address) if not path.is_dir()]
    return [str(path) if is_absolute else os.path.relpath(path, root) for path in paths]


def _glob(base: Path, parts: list[str], address: str) -> list[Path]:
    if parts[-1] == RECURSIVE_WILDCARD:
        parts = [*parts, "*"]  # the files below, as newer versions of pathlib have it
    try:
        found = set(base.glob("/".join(parts)))
    except ValueError as error:  # such as a segment `**.csv`
        raise UserError(f"{redact_url(address)}: {error}") from None
    return [path for path in found if _is_match(path.relative_to(base).parts, parts)]


def _is_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches segment by segment, where only a written dot matches a leading dot."""
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == RECURSIVE_WILDCARD:
        if _is_match(parts, rest):
            return True
        return bool(parts) and not parts[0].startswith(".") and _is_match(parts[1:], pattern)
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(parts[0], first) and _is_match(parts[1:], rest)


def _find_folder(base: Path, segment: str) -> Path | None:
    """Return the folder that has the name of a segment, written plainly or as `glob.escape` writes it."""
    names = (segment, _ESCAPED.sub(r"\1", segment))
    return next((base / name for name in names if (base / name).is_dir()), None)


def _expand_remote(address: str) -> list[str]:
    from fsspec.core import url_to_fs

    try:
        system, pattern = url_to_fs(address)
        if system.isfile(pattern):
            return [address]
        listed = system.glob(pattern, detail=True)
    except Exception as error:  # each file system has errors of its own
        raise UserError(
            f"{redact_url(address)}: cannot be listed: {redact_urls_in(str(error), address)}"
        ) from None
    segments = pattern.strip("/").split("/")
    if segments[-1] == RECURSIVE_WILDCARD:
        segments.append("*")
    files = [
        path
        for path, details in listed.items()
        if details.get("type") != "directory" and _is_match(path.strip("/").split("/"), segments)
    ]
    if address.endswith(pattern):  # what stands before it may name a host, which no path of a listing does
        return [address.removesuffix(pattern) + path for path in files]
    return [system.unstrip_protocol(path) for path in files]
