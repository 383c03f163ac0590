"""A PostgreSQL server of the test's own: a cluster in a temporary folder, on loopback, with passwords."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD = "tuner", "s3cret w@rd"


@contextmanager
def postgres() -> Iterator[int]:
    """Yield the port of a server that knows one user by password; skip the test where none is installed."""
    programs = _programs()
    account = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if programs is None or (account and not any(user.pw_name == account for user in pwd.getpwall())):
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="sentiment-postgres-"))  # pytest's own folders are root's alone
    try:
        password_file = folder / "password"
        password_file.write_text(PASSWORD + "\n")
        if account:
            for path in (folder, password_file):
                shutil.chown(path, account)
        data, port = folder / "data", _free_port()
        initialise = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"]
        _run(account, folder, programs / "initdb", "-D", data, *initialise)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        _run(account, folder, *control, "-o", options, "start")
        try:
            yield port
        finally:
            _run(account, folder, *control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(account: str | None, folder: Path, *command: str | Path) -> None:
    subprocess.run(command, user=account, cwd=folder, check=True, capture_output=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)  # Debian keeps them off the path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
