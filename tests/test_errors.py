"""The message and the exit status of a command that fails."""

import errno
import runpy
from pathlib import Path

import pytest

from sentiment import errors
from sentiment.errors import TrainingDivergedError, UserError, exits_cleanly


class StoreError(OSError):
    """An exception of a library, which is also a system error, as some of requests are."""


@pytest.fixture(autouse=True)
def translators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a translator for StoreError, and remove it after the test."""
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setattr(errors, "_translators", [])
    errors.register_translator(
        lambda error: UserError("cannot reach the store") if isinstance(error, StoreError) else None
    )


def _run(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the exit status and standard error of a command that raises an exception."""

    @exits_cleanly
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as exited:
        command()
    return exited.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("wrong key"), 2, "error: wrong key\n"),
        (TrainingDivergedError("the loss is nan"), 3, "error: the loss is nan\n"),
        (StoreError("timeout"), 2, "error: cannot reach the store\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "models"),
            2,
            "error: [Errno 13] Permission denied: 'models'\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted; output files are complete or unchanged\n"),
    ],
)
def test_error_is_one_message_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(error, capsys) == (status, message)


def test_full_disk_comes_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    status, message = _run(OSError(errno.ENOSPC, "No space left on device", "models/a"), capsys)
    assert status == UserError.exit_status
    assert "the disk is full: [Errno 28] No space left on device: 'models/a'; free some space" in message


def test_bug_keeps_its_traceback() -> None:
    @exits_cleanly
    def command() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        command()


def test_invalid_log_level_is_reported_like_any_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    status, message = _run(KeyError("not reached"), capsys)
    assert status == UserError.exit_status
    assert "LOG_LEVEL" in message


def test_missing_working_directory_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(folder)
    folder.rmdir()
    status, message = _run(KeyError("not reached"), capsys)
    assert status == UserError.exit_status
    assert "the current folder no longer exists" in message


def test_library_that_raised_an_error_is_the_innermost_one(tmp_path: Path) -> None:
    script = tmp_path / "outer.py"
    script.write_text("import json\njson.loads('{')\n")
    with pytest.raises(ValueError, match="Expecting") as raised:
        runpy.run_path(str(script), run_name="outer.module")
    assert errors.find_raising_library(raised.value, "outer", "json") == "json"
    assert errors.find_raising_library(raised.value, "outer", "optuna") == "outer"
    assert errors.find_raising_library(raised.value, "mlflow", "optuna") is None
