"""A file elsewhere, through fsspec: its version and its bytes, with errors that say whether to ask again."""

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sentiment.data.addresses import get_scheme, redact_urls_in
from sentiment.data.download_cache import FileVersion

if TYPE_CHECKING:  # takes 0.2 s, which a stage that finds its file in the cache need not wait for
    from aiohttp import ClientResponse

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT = 20.0
READ_TIMEOUT = 60.0
"""Longest wait for the next bytes. The whole may take as long as it needs; aiohttp would stop after 300 s."""

PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, FIRST_SERVER_ERROR = 206, 416, 500
TRANSIENT_STATUSES = {408, 425, 429}
"""Request timeout, too early, too many requests; all else below 500 stays as it is."""

CREDENTIAL_ERRORS = ("Auth", "Credential")
"""In the names of other libraries' errors: to ask again with a wrong password can lock an account."""

VERSION_KEYS = (
    "ETag",
    "etag",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
"""Where fsspec's file systems tell one version from the next, the most exact first."""


class MirrorError(Exception):
    """A mirror does not give the file, and asking it again would not help."""


class TransientError(MirrorError):
    """A mirror did not give the file this time."""


class RangeError(TransientError):
    """The mirror did not go on where it was asked to: the download must start over."""


class RemoteFile:
    """One address that fsspec can open, for one try: some file systems connect once and for all."""

    def __init__(self, url: str) -> None:
        """Raises MirrorError where the protocol is unknown, or needs a package that is not installed.

        PassingError where a file system that connects at once, as SSH does, cannot.
        """
        self.url = url
        scheme = get_scheme(url)
        self.is_http = scheme in ("http", "https")
        try:
            self._system, self._path = self._open_http(scheme) if self.is_http else self._open_other()
        except ImportError as error:
            extras = importlib.metadata.metadata("fsspec").get_all("Provides-Extra") or []
            need = f'pip install "fsspec[{scheme}]"' if scheme in extras else str(error)
            raise MirrorError(f"{scheme}:// needs a package that is not installed: {need}") from None
        except Exception as error:  # each file system has errors of its own
            raise self._failure(error) from None

    def version(self) -> FileVersion:
        """Ask for size and tag. Raises MirrorError."""
        try:
            info = self._system.info(self._path)
        except Exception as error:
            raise self._failure(error) from None
        if info.get("type") == "directory":
            raise MirrorError("a folder, not a file")
        tag = next((str(info[name]) for name in VERSION_KEYS if info.get(name)), None)
        return FileVersion(info.get("size"), tag)

    @contextmanager
    def reading(self, offset: int, version: FileVersion) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield where the bytes begin, which is 0 where the server cannot begin at `offset`, and the bytes.

        Raises MirrorError, also while the bytes are read.
        """
        try:
            stream = self._open_stream(offset, version)
        except Exception as error:
            raise self._failure(error) from None
        try:
            starts_there = not self.is_http or _starts_at(stream.r, offset, version)
            yield (offset if starts_there else 0), self._chunks(stream)
        finally:
            stream.close()

    def _chunks(self, stream: Any) -> Iterator[bytes]:
        while True:
            try:
                chunk: bytes = stream.read(CHUNK_BYTES)
            except Exception as error:
                raise self._failure(error) from None
            if not chunk:
                return
            yield chunk

    def _open_http(self, scheme: str) -> tuple[Any, str]:
        import aiohttp
        import fsspec

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        # trust_env: proxies. No unpacking: some servers call a .gz file gzipped content, which it is not.
        client = {"timeout": timeout, "trust_env": True, "auto_decompress": False}
        return fsspec.filesystem(scheme, client_kwargs=client), self.url

    def _open_other(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        # fsspec would hand out the same system again, with its dead connection and old listings
        system, path = url_to_fs(self.url, skip_instance_cache=True)
        return system, path

    def _open_stream(self, offset: int, version: FileVersion) -> Any:
        if not self.is_http:
            stream = self._system.open(self._path, "rb")
            stream.seek(offset)
            return stream
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if version.tag and not version.tag.startswith("W/"):  # a weak tag may not stand there
                headers["If-Range"] = version.tag
        # block_size=0 asks for one stream; any size keeps fsspec from asking for it once more
        return self._system.open(self._path, "rb", block_size=0, size=version.size or 1, headers=headers)

    def _failure(self, error: Exception) -> MirrorError:
        import aiohttp

        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec says "not found" of whatever went wrong with a HEAD request
        if isinstance(error, aiohttp.ClientResponseError):
            if error.status == RANGE_NOT_SATISFIABLE:
                return RangeError(f"{error.status} {error.message}")
            passing = error.status >= FIRST_SERVER_ERROR or error.status in TRANSIENT_STATUSES
            return (TransientError if passing else MirrorError)(f"{error.status} {error.message}".strip())
        if isinstance(error, FileNotFoundError):
            return MirrorError("404 Not Found" if self.is_http else "no such file")
        if isinstance(error, aiohttp.ClientPayloadError):
            return TransientError("the connection broke off")
        text = redact_urls_in(str(error), self.url) or type(error).__name__
        lasting = (aiohttp.ClientSSLError, PermissionError, IsADirectoryError, ValueError, TypeError)
        refused = any(word in type(error).__name__ for word in CREDENTIAL_ERRORS)
        return (MirrorError if refused or isinstance(error, lasting) else TransientError)(text)


def _starts_at(response: "ClientResponse", offset: int, version: FileVersion) -> bool:
    """Whether the server did as asked: a part from `offset`, of a file of the same size."""
    if offset == 0 or response.status != PARTIAL_CONTENT:
        return offset == 0
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same_size = found is not None and (version.size is None or found[2] in ("*", str(version.size)))
    if found is None or int(found[1]) != offset or not same_size:
        raise RangeError("the server sent another part of the file than was asked for")
    return True
