"""The storage of studies: the journal and databases, and how errors in them are reported."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest

from sentiment.errors import UserError
from sentiment.tuning.storage import open_journal, open_storage
from tests.tuning.postgres import PASSWORD, USER, postgres


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository root."""
    monkeypatch.delenv("TUNE_STORAGE", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a PostgreSQL server."""
    with postgres() as port:
        yield port


@pytest.fixture
def journal(root: Path) -> Path:
    """A journal with one study of two trials."""
    study = optuna.create_study(storage=open_storage(), study_name="two")
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    return root / "mlruns" / "optuna.journal"


def test_default_is_the_journal_below_the_root(journal: Path) -> None:
    assert len(optuna.load_study(storage=open_storage(), study_name="two").trials) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 20])
def test_journal_with_a_truncated_last_line_is_rejected_and_unchanged(journal: Path, cut: int) -> None:
    truncated = journal.read_bytes()[:-cut]
    journal.write_bytes(truncated)
    with pytest.raises(UserError, match="is truncated or corrupt") as raised:
        open_storage()
    assert journal.read_bytes() == truncated
    remedy = str(raised.value).split("`")[1]
    assert os.system(remedy) == 0  # noqa: S605
    assert len(optuna.load_study(storage=open_storage(), study_name="two").trials) == 2


@pytest.mark.parametrize("line", [b"{'op_code': 1}\n", b"[1]\n", b'{"op": 1}\n', b"\xff\x00\n", b"\n"])
def test_corrupt_line_is_rejected_with_its_number(journal: Path, line: bytes) -> None:
    whole = journal.read_bytes().splitlines(keepends=True)
    corrupt = b"".join([*whole[:2], line, *whole[2:]])
    journal.write_bytes(corrupt)
    with pytest.raises(UserError, match="line 3 is truncated or corrupt"):
        open_storage()
    assert journal.read_bytes() == corrupt


def test_unknown_kind_of_entry_is_rejected(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b'{"op_code":99,"worker_id":"x"}\n')
    before = journal.read_bytes()
    with pytest.raises(UserError, match="cannot read this journal"):
        open_storage()
    assert journal.read_bytes() == before


def test_nothing_is_appended_to_a_journal_truncated_meanwhile(journal: Path) -> None:
    study = optuna.load_study(storage=open_storage(), study_name="two")
    truncated = journal.read_bytes()[:-5]
    journal.write_bytes(truncated)
    with pytest.raises(UserError, match="is truncated or corrupt"):
        study.ask()
    assert journal.read_bytes() == truncated


def _hold_lock(path: Path, held: "multiprocessing.synchronize.Event") -> None:
    storage = open_journal(path)
    storage._backend.lock.acquire()
    held.set()
    signal.pause()


@pytest.mark.slow
def test_killed_process_leaves_no_lock_behind(journal: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold_lock, args=(journal, held))
    process.start()
    assert held.wait(60)
    process.kill()
    process.join()
    optuna.load_study(storage=open_storage(), study_name="two").ask()


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _secret_spellings() -> set[str]:
    return {"wrong s3cret", quote("wrong s3cret"), "s3cret"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        lambda server, unused: (
            f"postgresql+psycopg://{USER}:{quote('wrong s3cret')}@127.0.0.1:{server}/postgres"
        ),
        lambda server, unused: (
            f"postgresql+psycopg://{USER}:{quote('wrong s3cret')}@127.0.0.1:{unused}/postgres"
        ),
        lambda server, unused: f"postgresql+psycopg://{USER}:wrong s3cret@127.0.0.1:notaport/postgres",
        lambda server, unused: f"postgresql+nodriver://{USER}:wrong%20s3cret@127.0.0.1/postgres",
        lambda server, unused: "wrong s3cret",
    ],
    ids=["wrong-password", "unreachable", "malformed", "no-such-driver", "no-address"],
)
def test_database_error_is_reported_without_the_password(
    address: Callable[[int, int], str],
    server: int,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TUNE_STORAGE", address(server, unused_port))
    with pytest.raises(UserError, match="TUNE_STORAGE") as raised:
        open_storage()
    assert raised.value.__cause__ is None
    reported = str(raised.value) + "".join(capfd.readouterr()) + caplog.text
    assert not [secret for secret in _secret_spellings() if secret in reported], reported


@pytest.mark.integration
def test_wrong_password_is_reported(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_STORAGE", f"postgresql+psycopg://{USER}:nope-9@127.0.0.1:{server}/postgres")
    with pytest.raises(UserError, match="password authentication failed"):
        open_storage()


@pytest.mark.integration
def test_study_is_stored_in_the_database(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"postgresql+psycopg://{USER}:{quote(PASSWORD)}@127.0.0.1:{server}/postgres"
    monkeypatch.setenv("TUNE_STORAGE", address)
    optuna.create_study(storage=open_storage(), study_name="kept")
    assert optuna.get_all_study_names(open_storage()) == ["kept"]


def test_relative_sqlite_file_is_below_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_STORAGE", "sqlite:///somewhere/studies.db")
    open_storage()
    assert (root / "somewhere" / "studies.db").exists()
