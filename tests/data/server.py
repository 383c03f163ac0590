"""HTTP server on loopback that simulates failures."""

import http.server
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import running

CHUNK = 1 << 14
SECONDS_BEFORE_DROP = 0.05
"""Time for the other side to take what was sent: aiohttp drops what it holds when the line does."""


@dataclass
class Served:
    """One file at every address of a server, and how the server misbehaves."""

    content: bytes
    etag: str | None = '"one"'
    honours_ranges: bool = True
    wrong_ranges: bool = False
    """Answer 206 with another part than was asked for."""
    status: int | None = None
    """Answer everything with this status."""
    failures: list[int] = field(default_factory=list)
    """For each coming GET: a status of 500 or more, or a number of bytes after which the line drops."""
    seconds_per_chunk: float = 0.0
    chunked: bool = False
    """Do not send the size."""
    port: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Method and Range header of each request."""
    authorizations: list[str | None] = field(default_factory=list)

    def url(self, path: str = "reviews.tar.gz", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{path}"

    @property
    def downloads(self) -> list[str | None]:
        """The Range header of each GET request."""
        return [ranges for method, ranges in self.asked if method == "GET"]


@contextmanager
def serving(content: bytes, **options: Any) -> Iterator[Served]:
    served = Served(content, **options)
    with running(_Handler, served):
        yield served


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        served = self.served
        served.asked.append((self.command, self.headers.get("Range")))
        served.authorizations.append(self.headers.get("Authorization"))
        failure = served.failures.pop(0) if with_body and served.failures else None
        status = served.status or (failure if failure and 500 <= failure < 600 else None)
        if status:
            self.send_error(status)
            return
        start, total = self._start(), len(served.content)
        self.send_response(206 if start else 200)
        if start:
            shift = 1 if served.wrong_ranges else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{total - 1}/{total}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.chunked:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        if with_body:
            self._send(served.content[start:], failure)
        self.close_connection = served.chunked or self.close_connection

    def _start(self) -> int:
        served, asked = self.served, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, served.etag)
        return int(asked[1]) if asked and served.honours_ranges and same else 0

    def _send(self, body: bytes, drop_after: int | None) -> None:
        for position in range(0, len(body), CHUNK):
            end = position + CHUNK
            if drop_after is not None and end >= drop_after:
                self.wfile.write(body[position:drop_after])
                time.sleep(SECONDS_BEFORE_DROP)
                self.close_connection = True
                return
            try:
                self.wfile.write(body[position:end])
            except ConnectionError:  # the other side was killed
                self.close_connection = True
                return
            time.sleep(self.served.seconds_per_chunk)
