"""A bare repository behind HTTP, which requires a token to push, as a forge does.

Git itself answers (`git http-backend`), so that fetches from shallow clones and refused pushes are real.
"""

import base64
import http.server
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.http_server import running


@dataclass
class GitServer:
    """The address of the repositories below a folder, and who may push to them."""

    folder: Path
    port: int = 0
    can_push: dict[str, bool] = field(default_factory=dict)
    """Tokens, and whether each has the permission `contents: write`. Reading needs no token."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def authorize(self, header: str | None) -> int:
        """Return the status with which a push is answered: 200, or 401 or 403 as a forge does."""
        if not header:
            return 401
        user, _, token = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        assert user == "x-access-token"
        return 200 if self.can_push.get(token) else 403


@contextmanager
def serving_git(folder: Path) -> Iterator[GitServer]:
    """Serve the repositories below a folder on a free port of this machine."""
    served = GitServer(folder)
    with running(_Handler, served):
        yield served


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: GitServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._read_chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _read_chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return content

    def _answer(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        is_push = path.endswith("/git-receive-pack") or query == "service=git-receive-pack"
        status = self.served.authorize(self.headers.get("Authorization")) if is_push else 200
        if status != 200:
            headers = {"WWW-Authenticate": 'Basic realm="forge"'} if status == 401 else {}
            self._send(status, headers, b"Write access to repository not granted.\n")
            return
        variables = {
            "GIT_PROJECT_ROOT": str(self.served.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **({"REMOTE_USER": "job"} if is_push else {}),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""
