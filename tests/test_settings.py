import os
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from sentiment.errors import UserError
from sentiment.settings import load_log_level, load_settings
from sentiment.tracking.mlflow_store import default_tracking_uri, tracking_uri


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty repository root, with none of the variables set."""
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


def test_environment_overrides_the_file_and_empty_means_unset(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".env").write_text("MLFLOW_EXPERIMENT_NAME=from-file\nMLFLOW_TRACKING_URI=http://file:1\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:2")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    settings = load_settings()
    assert tracking_uri(settings) == "http://environment:2"
    assert settings.mlflow_experiment_name == "from-file"


def test_password_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret-word@host")
    assert "secret-word" not in repr(load_settings())


def test_unreadable_environment_file_is_a_user_error(root: Path) -> None:
    (root / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"\.env"):
        load_settings()


ODD_NAMES = ("a?b", "a%2Fb", "a%20b", "a#b", "a b", "ä+b", "a:b@c")


@pytest.fixture(params=ODD_NAMES)
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository whose path contains characters with a meaning in addresses."""
    root = tmp_path / "odd" / str(request.param)
    root.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("below", [".", "sub"])
def test_address_refers_to_the_file_whatever_the_path_contains(
    odd: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (odd / below).mkdir(exist_ok=True)
    monkeypatch.chdir(odd / below)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///kept/runs.db?timeout=3")
    for address, expected in (
        (default_tracking_uri(), odd / "mlruns/mlflow.db"),
        (tracking_uri(load_settings()), odd / "kept/runs.db"),
    ):
        database = make_url(address).database
        assert database is not None
        assert Path(os.path.abspath(database)) == expected  # noqa: PTH100 as sqlite takes it: links stay


def test_path_that_no_address_can_contain_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "a?b"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a\?b.*: the address of a sqlite database cannot contain"):
        default_tracking_uri()


def test_log_level_is_read_from_the_file_in_any_case(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    (root / ".env").write_text("LOG_LEVEL=warning\nTUNE_WORKERS=none\n")
    assert load_log_level() == "WARNING"


def test_all_invalid_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_WORKERS", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(UserError, match=r"(?s)^invalid environment variables:.*LOG_LEVEL: .*TUNE_WORKERS: "):
        load_settings()
