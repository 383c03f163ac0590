"""A real tracking server on loopback, which may die and come back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

PASSWORD = "s3cret-w0rd"  # noqa: S105  # the server does not require it; no output may contain it
START_S = 120.0


@dataclass
class TrackingServer:
    """A server with its database and artifacts in a folder; it does not require the password."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    """File for its output; None: the output of this process."""
    database: str | None = None
    """Address of its database; None: a SQLite file in the folder."""

    @property
    def address(self) -> str:
        return f"http://user:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.log or Path(os.devnull)).open("ab") as log:
            self.process = self._started(log if self.log else None)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server never answered"
            time.sleep(0.2)

    def _started(self, log: BinaryIO | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host=127.0.0.1",
                f"--port={self.port}",
                "--workers=1",
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "MLFLOW_BACKEND_STORE_URI": self.database or f"sqlite:///{self.folder}/server.db",
                "MLFLOW_ARTIFACTS_DESTINATION": f"{self.folder}/kept",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            start_new_session=True,
            stdout=log,
            stderr=log,
        )

    def kill(self) -> None:
        """End it at once, with the processes that it started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def tracking_server(
    folder: Path, log: Path | None = None, database: str | None = None, *, is_down: bool = False
) -> Iterator[TrackingServer]:
    """Yield a server that answers, or one that is not started yet.

    folder: a new one for what it keeps; the rest: as in `TrackingServer`.
    """
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = TrackingServer(folder, probe.getsockname()[1], log=log, database=database)
    try:
        if not is_down:
            server.start()
        yield server
    finally:
        server.kill()
