"""Addresses that give nothing, or something else."""

import hashlib
import socket
from typing import Any

from sentiment.data import remote
from tests.data.invalid_sources import Place, case
from tests.data.source_files import files_source

CONTENT = b"not what was asked for"
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
ZEROS_MD5, ZEROS_SHA256 = "md5:" + "0" * 32, "sha256:" + "0" * 64
CLOSED_PORT = 1  # tcpmux, which is not in use
GIVEN_UP = [500] * 50


def imdb(*urls: str, checksum: str | None = None) -> dict[str, Any]:
    return {"sources": [{"kind": "imdb", "urls": list(urls), "checksum": checksum}]}


def _silent(place: Place) -> str:
    """A host that takes the connection and never answers."""
    listener = place.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    place.monkeypatch.setattr(remote, "READ_TIMEOUT", 0.05)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/reviews.tar.gz"


def _from_server(checksum: str | None = None, **options: Any) -> Any:
    return lambda place: imdb(place.serve(CONTENT, **options).url(), checksum=checksum)


def _csv_from_server(path: str, **options: Any) -> Any:
    return lambda place: {"sources": [files_source(place.serve(CONTENT, **options).url(path))]}


CASES = [
    case(
        "closed port",
        lambda _: imdb(f"http://127.0.0.1:{CLOSED_PORT}/a.tar.gz"),
        "cannot fetch http://127.0.0.1:1/a.tar.gz: Cannot connect",
    ),
    case(
        "no such host",
        lambda _: imdb("http://reviews.invalid/a.tar.gz"),
        "cannot fetch http://reviews.invalid/a.tar.gz: Cannot connect to host reviews.invalid",
    ),
    case("host is silent", lambda place: imdb(_silent(place)), "cannot fetch http://127.0.0.1", "imeout"),
    *(
        case(
            f"{status}", _from_server(status=status), "cannot fetch http://127.0.0.1", f": {status} {reason}"
        )
        for status, reason in {
            404: "Not Found",
            403: "Forbidden",
            401: "Unauthorized",
            410: "Gone",
            500: "Internal Server Error",
            503: "Service Unavailable",
        }.items()
    ),
    case("500 after the size was sent", _from_server(failures=list(GIVEN_UP)), "500 Internal Server Error"),
    case("line drops at once", _from_server(failures=[0] * 50), "the connection was interrupted"),
    case(
        "no mirror of three",
        lambda place: imdb(
            f"http://127.0.0.1:{CLOSED_PORT}/a.tar.gz",
            place.serve(CONTENT, status=404).url("b.tar.gz"),
            "c.tar.gz",
        ),
        "none of 3 mirrors serves the file",
        "/a.tar.gz: Cannot connect",
        "/b.tar.gz: 404 Not Found",
        "c.tar.gz: no such file",
    ),
    case("wrong MD5", _from_server(ZEROS_MD5), "reviews.tar.gz: wrong", f"expected {ZEROS_MD5}, found {MD5}"),
    case("wrong SHA-256", _from_server(ZEROS_SHA256), f"expected {ZEROS_SHA256}, found {SHA256}"),
    case(
        "page instead of the archive",
        lambda place: imdb(place.serve(b"<html><body>Please log in</body></html>" * 40).url()),
        "reviews.tar.gz: not a tar archive, uncompressed or compressed with gzip",
        keeps_download=True,
    ),
    case(
        "empty answer",
        lambda place: imdb(place.serve(b"").url()),
        "reviews.tar.gz: the file is empty (0 bytes)",
        keeps_download=True,
    ),
    case("unknown protocol", lambda _: imdb("carrier-pigeon://a/b"), "carrier-pigeon://a/b", "not known"),
    case("password is not shown", lambda _: imdb("http://me:secret@127.0.0.1:1/a"), "http://127.0.0.1:1/a:"),
    case("404 for a CSV", _csv_from_server("a.csv", status=404), "/a.csv: 404 Not Found"),
    case("403 for a CSV", _csv_from_server("a.csv?token=secret", status=403), "/a.csv: 403 Forbidden"),
    case(
        "wrong MD5 of a CSV",
        lambda place: {
            "sources": [files_source(place.serve(CONTENT).url("a.csv"), checksum=ZEROS_MD5)],
        },
        f"/a.csv: wrong checksum: expected {ZEROS_MD5}, found {MD5}",
    ),
]
