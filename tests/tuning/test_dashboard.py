"""`sentiment dashboard`, started as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sentiment.settings import ROOT_FILES
from tests.project import Project
from tests.tuning.studies import searched


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """A repository without a search."""
    for name in ROOT_FILES:
        (tmp_path / name).touch()
    return Project(tmp_path)


@pytest.fixture
def searching(empty: Project) -> Project:
    """A repository whose journal holds one search."""
    (empty.root / "mlruns").mkdir()
    searched(6, JournalStorage(JournalFileBackend(str(empty.root / "mlruns/optuna.journal"))))
    return empty


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _dashboard(project: Project, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = _free_port()
    serving = subprocess.Popen(
        ["sentiment", "dashboard", "--port", str(port)],
        cwd=project.root,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield serving, f"http://127.0.0.1:{port}"
    finally:
        serving.kill()
        serving.communicate()


def _get(address: str) -> bytes:
    for _ in range(1200):  # a busy machine takes half a minute to start it
        try:
            return bytes(urllib.request.urlopen(address, timeout=5).read())
        except URLError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def test_dashboard_shows_the_search_in_the_journal(searching: Project) -> None:
    with _dashboard(searching) as (_, address):
        studies = json.loads(_get(f"{address}/api/studies"))["study_summaries"]
        assert [study["study_name"] for study in studies] == ["tune-example"]
        trials = json.loads(_get(f"{address}/api/studies/0?after=0"))["trials"]
        assert len(trials) == 6
        assert b"<html" in _get(address)


def test_dashboard_reads_the_database_in_tune_storage(empty: Project) -> None:
    database = f"sqlite:///{empty.root}/studies.db"
    searched(2, RDBStorage(database))
    with _dashboard(empty, TUNE_STORAGE=database) as (_, address):
        assert b"tune-example" in _get(f"{address}/api/studies")


def test_interrupted_dashboard_exits_without_a_traceback(searching: Project) -> None:
    with _dashboard(searching) as (serving, address):
        _get(f"{address}/api/meta")
        time.sleep(1)  # the server drops an interrupt that comes while it ends an answer
        serving.send_signal(signal.SIGINT)
        printed, errors = serving.communicate(timeout=20)
        assert serving.returncode in (0, 130)
        assert address in printed
        assert "Traceback" not in errors


def test_dashboard_does_not_change_the_journal(searching: Project) -> None:
    journal = searching.root / "mlruns/optuna.journal"
    before = journal.read_bytes()
    with _dashboard(searching) as (_, address):
        _get(f"{address}/api/studies/0?after=0")
    assert journal.read_bytes() == before


def test_message_without_a_search_names_the_command_that_starts_one(empty: Project) -> None:
    done = empty.run("sentiment", "dashboard", status=2)
    assert done.stderr.startswith("error: ")
    assert "mlruns/optuna.journal: there is no study yet; `dvc repro tune` starts one" in done.stderr
    assert not (empty.root / "mlruns").exists()


def test_dashboard_started_in_a_subfolder_shows_the_repositorys_searches(searching: Project) -> None:
    subfolder = searching.root / "docs" / "images"
    subfolder.mkdir(parents=True)
    with _dashboard(Project(subfolder)) as (serving, address):
        assert serving.stdout is not None
        assert f"{address}/dashboard" in serving.stdout.readline()
        # The address is printed once it is answered: no second try.
        assert b"tune-example" in urllib.request.urlopen(f"{address}/api/studies", timeout=30).read()
    assert not any(subfolder.iterdir())


def test_message_for_a_port_in_use_suggests_another(searching: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = searching.run("sentiment", "dashboard", "--port", str(port), status=2)
    assert f"port {port} is in use; choose another: make dashboard PORT={port + 1}" in done.stderr


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://someone:hush-hush@127.0.0.1:1/studies",
        "nonsense://hush-hush",
        "hush-hush",
        "sqlite:////proc/hush-hush.db",
    ],
)
def test_storage_error_is_reported_without_the_address(searching: Project, address: str) -> None:
    done = searching.run("sentiment", "dashboard", status=2, TUNE_STORAGE=address)
    assert "TUNE_STORAGE" in done.stderr.splitlines()[-1]
    assert "hush" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_file_that_is_not_a_journal_is_reported(searching: Project) -> None:
    (searching.root / "mlruns/optuna.journal").write_text("not\na journal\n")
    done = searching.run("sentiment", "dashboard", status=2)
    assert "optuna.journal: line 1 is truncated or corrupt" in done.stderr
