"""Experiments and runs that were deleted: the message says what restores them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.tracking_server import PASSWORD, TrackingServer, tracking_server
from sentiment.errors import UserError, translated_errors
from sentiment.settings import Settings
from sentiment.tracking import open_store, start_run


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, whose path a shell would split."""
    folder = tmp_path / "my project"
    folder.mkdir()
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    with tracking_server(tmp_path / "server") as started:
        yield started


def _command(message: str) -> str:
    return message.split("`")[1]


def _run(command: str, **environment: str) -> None:
    subprocess.run(command, shell=True, check=True, env={**os.environ, **environment})  # noqa: S602


def test_deleted_experiment_is_restored_by_the_command_that_the_message_names() -> None:
    store = open_store()
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="experiment 'sentiment' is in the trash") as raised:
        open_store()
    assert "MLFLOW_EXPERIMENT_NAME" in str(raised.value)
    _run(_command(str(raised.value)))
    assert open_store().experiment_id == store.experiment_id


@pytest.mark.integration
def test_deleted_experiment_of_a_server(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    store = open_store()
    run = start_run(store, "train", "train")
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="in the trash") as raised:
        open_store()
    assert PASSWORD not in str(raised.value)
    with pytest.raises(UserError, match="in the trash") as meanwhile, translated_errors(), run:
        run.log_metrics({"loss": 0.5})
    assert PASSWORD not in str(meanwhile.value)
    _run(_command(str(raised.value)), MLFLOW_TRACKING_URI=server.address)
    assert open_store().experiment_id == store.experiment_id


def test_run_deleted_while_it_is_logged_to() -> None:
    store = open_store()
    run = start_run(store, "train", "train")
    store.client.delete_run(run.id)
    with pytest.raises(UserError, match="it is in the trash, `MLFLOW") as raised, translated_errors(), run:
        run.log_metrics({"loss": 0.5})
    _run(_command(str(raised.value)))
    run.log_metrics({"loss": 0.5})


LOG = """
from sentiment.tracking import open_store, start_run
with start_run(open_store(), "train", "train") as run:
    run.log_text("page.html", "kept")
print([file.path for file in run.store.client.list_artifacts(run.id)])
"""


@pytest.mark.parametrize("name", ["a?b", "a%2Fb", "a%20b c#d"])
def test_store_in_a_path_with_signs_of_addresses(name: str, tmp_path: Path) -> None:
    """In a process each: MLflow keeps a store by its address, which may be relative here."""
    root = tmp_path / "odd" / name
    root.mkdir(parents=True)
    environment = {**os.environ, "DVC_ROOT": str(root)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", LOG]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "['page.html']\n", done.stderr
    assert (root / "mlruns/mlflow.db").exists()
    (page,) = (root / "mlruns/artifacts").rglob("page.html")
    assert page.read_text() == "kept"
    assert [path.name for path in (tmp_path / "odd").iterdir()] == [name], "no folder beside it"
    assert [path.name for path in root.iterdir()] == ["mlruns"]


def test_message_about_the_default_store_names_its_folder_and_no_variable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "mlruns").mkdir()
    (root / "mlruns/mlflow.db").write_text("no database")
    with pytest.raises(UserError) as raised:
        open_store()
    assert str(root / "mlruns") in str(raised.value)
    assert "MLFLOW_TRACKING_URI" not in str(raised.value)
