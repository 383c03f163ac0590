from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.settings import load_settings
from sentiment.tracking.store import tracking_uri


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository root, and none of the variables set."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_store_is_below_the_root_that_dvc_names(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    assert tracking_uri(load_settings()) == f"sqlite:///{root}/mlruns/mlflow.db"


def test_relative_database_is_below_the_root_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/runs.db")
    assert tracking_uri(load_settings()) == f"sqlite:///{root}/elsewhere/runs.db"


def test_environment_goes_before_the_file_and_empty_means_unset(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".env").write_text("MLFLOW_EXPERIMENT_NAME=from-file\nMLFLOW_TRACKING_URI=http://file:1\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:2")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    settings = load_settings()
    assert tracking_uri(settings) == "http://environment:2"
    assert settings.mlflow_experiment_name == "from-file"


def test_password_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret-word@host")
    assert "secret-word" not in repr(load_settings())


def test_unreadable_environment_file_is_a_user_error(root: Path) -> None:
    (root / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"\.env"):
        load_settings()
