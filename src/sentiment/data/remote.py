"""Remote files through fsspec, with errors that distinguish transient from permanent failures."""

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sentiment.data.download_cache import FileVersion
from sentiment.data.locations import get_scheme, redact_urls_in

if TYPE_CHECKING:  # the import takes 0.2 s, which is not needed for a cached file
    from aiohttp import ClientResponse

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT = 20.0
"""Maximum seconds to connect."""
READ_TIMEOUT = 60.0
"""Maximum seconds without data. The total time is not limited; aiohttp's default would be 300 s."""

PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, FIRST_SERVER_ERROR = 206, 416, 500
TRANSIENT_STATUSES = {408, 425, 429}
"""Request Timeout, Too Early, Too Many Requests. All other statuses below 500 are permanent."""

CREDENTIAL_ERRORS = ("Auth", "Credential")
"""Parts of the names of credential errors, which are not retried, because that may lock an account."""

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
"""Keys under which fsspec's file systems report the version of a file, the most exact first."""


class MirrorError(Exception):
    """A mirror does not serve the file, and a retry would not help."""


class TransientError(MirrorError):
    """A mirror did not serve the file, but a retry may succeed."""


class RangeError(TransientError):
    """The mirror does not resume at the requested offset, so the download must restart."""


class RemoteFile:
    """A remote file for one download attempt, as some file systems connect only when they are created."""

    def __init__(self, url: str) -> None:
        """Open the file system of the URL.

        Raises:
            MirrorError: the protocol is unknown or needs a package that is not installed.
            TransientError: the file system connects when it is created, as SSH does, and that fails.
        """
        self.url = url
        scheme = get_scheme(url)
        self.is_http = scheme in ("http", "https")
        try:
            self._system, self._path = self._open_http(scheme) if self.is_http else self._open_other()
        except ImportError as error:
            extras = importlib.metadata.metadata("fsspec").get_all("Provides-Extra") or []
            requirement = f'pip install "fsspec[{scheme}]"' if scheme in extras else str(error)
            raise MirrorError(f"{scheme}:// needs a package that is not installed: {requirement}") from None
        except Exception as error:  # each file system raises its own exceptions
            raise self._convert_error(error) from None

    def request_version(self) -> FileVersion:
        """Request the size and tag of the file. Raises MirrorError if that fails."""
        try:
            info = self._system.info(self._path)
        except Exception as error:
            raise self._convert_error(error) from None
        if info.get("type") == "directory":
            raise MirrorError("a folder, not a file")
        tag = next((str(info[name]) for name in VERSION_KEYS if info.get(name)), None)
        return FileVersion(info.get("size"), tag)

    @contextmanager
    def open_stream(self, offset: int, version: FileVersion) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open the file and yield the offset of the first byte and an iterator over the bytes.

        Args:
            offset: requested offset. The actual one is 0 if the server does not support ranges.
            version: expected version of the file.

        Raises:
            MirrorError: the request fails, or reading fails, also while the caller iterates over the bytes.
        """
        try:
            stream = self._request_stream(offset, version)
        except Exception as error:
            raise self._convert_error(error) from None
        try:
            starts_there = not self.is_http or _starts_at(stream.r, offset, version)
            yield (offset if starts_there else 0), self._read_chunks(stream)
        finally:
            stream.close()

    def _read_chunks(self, stream: Any) -> Iterator[bytes]:
        while True:
            try:
                chunk: bytes = stream.read(CHUNK_BYTES)
            except Exception as error:
                raise self._convert_error(error) from None
            if not chunk:
                return
            yield chunk

    def _open_http(self, scheme: str) -> tuple[Any, str]:
        import aiohttp
        import fsspec

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        # trust_env: proxies. No decompression: some servers declare a .gz file as gzip-encoded content.
        client = {"timeout": timeout, "trust_env": True, "auto_decompress": False}
        return fsspec.filesystem(scheme, client_kwargs=client), self.url

    def _open_other(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        # fsspec would return the cached instance, with a dead connection and outdated listings
        system, path = url_to_fs(self.url, skip_instance_cache=True)
        return system, path

    def _request_stream(self, offset: int, version: FileVersion) -> Any:
        """Open the file as a stream that starts at `offset`, if the server supports that."""
        if not self.is_http:
            stream = self._system.open(self._path, "rb")
            stream.seek(offset)
            return stream
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if version.tag and not version.tag.startswith("W/"):  # a weak tag is not allowed in If-Range
                headers["If-Range"] = version.tag
        # block_size=0 requests one stream; with any size, fsspec does not request the size again
        return self._system.open(self._path, "rb", block_size=0, size=version.size or 1, headers=headers)

    def _convert_error(self, error: Exception) -> MirrorError:
        """Return the MirrorError or TransientError for an exception of a file system."""
        import aiohttp

        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec raises it for any failure of a HEAD request
        if isinstance(error, aiohttp.ClientResponseError):
            if error.status == RANGE_NOT_SATISFIABLE:
                return RangeError(f"{error.status} {error.message}")
            is_transient = error.status >= FIRST_SERVER_ERROR or error.status in TRANSIENT_STATUSES
            return (TransientError if is_transient else MirrorError)(
                f"{error.status} {error.message}".strip()
            )
        if isinstance(error, FileNotFoundError):
            return MirrorError("404 Not Found" if self.is_http else "no such file")
        if isinstance(error, aiohttp.ClientPayloadError):
            return TransientError("the connection was interrupted")
        text = redact_urls_in(str(error), self.url) or type(error).__name__
        permanent_errors = (aiohttp.ClientSSLError, PermissionError, IsADirectoryError, ValueError, TypeError)
        is_denied = any(word in type(error).__name__ for word in CREDENTIAL_ERRORS)
        return (MirrorError if is_denied or isinstance(error, permanent_errors) else TransientError)(text)


def _starts_at(response: "ClientResponse", offset: int, version: FileVersion) -> bool:
    """Return whether a response starts at `offset`. Raises RangeError for another part or file size."""
    if offset == 0 or response.status != PARTIAL_CONTENT:
        return offset == 0
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same_size = match is not None and (version.size is None or match[2] in ("*", str(version.size)))
    if match is None or int(match[1]) != offset or not same_size:
        raise RangeError("the server sent another part of the file than requested")
    return True
