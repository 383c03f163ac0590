"""`train` is killed at several moments and resumes with the same command."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sentiment.training.checkpoint import STATE_FILE
from sentiment.training.checkpoint_file import CorruptCheckpointError, read_checkpoint_file
from tests.project import Project, kill, wait_for

SLOW: dict[str, Any] = {"train.batch_size": 4, "model.embedding_dim": 256}
"""Dozens of steps per epoch and a checkpoint of several megabytes leave time for a kill."""

OUTPUTS = ("models/baseline/model.safetensors", "plots/train.csv", "metrics/train.json")
EACH_STEP, EACH_EPOCH = {"CHECKPOINT_MINUTES": "0.000001"}, {"CHECKPOINT_MINUTES": "1000"}


@pytest.fixture(scope="module")
def uninterrupted(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose `train` was not interrupted."""
    root = tmp_path_factory.mktemp("uninterrupted") / "project"
    shutil.copytree(reproduced.root, root, ignore=shutil.ignore_patterns("mlruns"))
    project = Project(root)
    project.set_params(SLOW)
    project.stage("train")
    return project


@pytest.fixture
def before(uninterrupted: Project, tmp_path: Path) -> Project:
    """The same before `train`, with an empty store."""
    shutil.copytree(uninterrupted.root, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns"))
    for name in OUTPUTS:
        (tmp_path / "project" / name).unlink()
    return Project(tmp_path / "project")


def _kill(
    project: Project, moment: Callable[[Path], bool], command: str, environment: dict[str, str]
) -> None:
    """Start a command and kill its process group once `moment` is true of a checkpoint folder."""
    process = project.start(*command.split(), **environment)
    wait_for(lambda: any(moment(folder) for folder in (project.root / ".checkpoints").glob("*")), process)
    kill(process)


def _position(folder: Path) -> tuple[int, int] | None:
    """Return the number of epochs and steps that the checkpoint has completed."""
    if not (folder / STATE_FILE).exists():
        return None
    try:
        state = read_checkpoint_file(folder / STATE_FILE)["state"]
    except CorruptCheckpointError:  # it was replaced while it was read
        return None
    return len(state["epochs"]), len(state["steps"])


def _middle_of_first_epoch(folder: Path) -> bool:
    return (_position(folder) or (0, 0))[1] >= 10


def _after_first_epoch(folder: Path) -> bool:
    return _position(folder) == (1, 0)


def _while_writing(folder: Path) -> bool:
    return (folder / f".{STATE_FILE}.partial").exists()


def _checkpoint(project: Project) -> Path:
    (folder,) = (project.root / ".checkpoints").iterdir()
    return folder


def _only_run(project: Project) -> Run:
    (run,) = project.runs()
    return run


def _require_equal_to_uninterrupted(project: Project, uninterrupted: Project) -> None:
    for name in OUTPUTS:
        assert (project.root / name).read_bytes() == (uninterrupted.root / name).read_bytes(), name
    assert not (project.root / ".checkpoints").exists()
    run = _only_run(project)
    assert run.info.status == "FINISHED"
    client = MlflowClient(f"sqlite:///{project.root}/mlruns/mlflow.db")
    for name in ("train_loss", "validation_auc", "tokens_per_second"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2], name


def test_resumes_after_kills_in_an_epoch_between_epochs_and_while_writing(
    before: Project, uninterrupted: Project
) -> None:
    command = "python -m stages.train"
    _kill(before, _middle_of_first_epoch, command, EACH_STEP)
    epochs, steps = _position(_checkpoint(before)) or (0, 0)
    assert epochs == 0
    assert steps >= 10
    killed = _only_run(before).info.run_id

    _kill(before, _after_first_epoch, command, EACH_EPOCH)
    assert _position(_checkpoint(before)) == (1, 0)

    for _ in range(5):  # the kill may come just after the rename
        _kill(before, _while_writing, command, EACH_STEP)
        if _while_writing(_checkpoint(before)):
            break
    assert _while_writing(_checkpoint(before))
    epochs, steps = _position(_checkpoint(before)) or (0, 0)
    assert epochs == 1

    resumed = before.stage("train")
    assert f"resuming at epoch 2, step {steps + 1} of " in resumed.stderr
    _require_equal_to_uninterrupted(before, uninterrupted)
    assert _only_run(before).info.run_id == killed


def test_resumes_under_dvc_and_logs_to_a_new_store(before: Project, uninterrupted: Project) -> None:
    _kill(before, _after_first_epoch, "dvc repro train", EACH_EPOCH)
    shutil.rmtree(before.root / "mlruns")
    before.run("dvc", "repro", "train")
    _require_equal_to_uninterrupted(before, uninterrupted)
    assert "Running stage" not in before.run("dvc", "repro", "train").stdout


def test_kill_before_dvc_records_the_model(before: Project, uninterrupted: Project) -> None:
    process = before.start("dvc", "repro", "train")
    ended = before.root / "metrics/train.json"
    wait_for(lambda: ended.exists() and not (before.root / ".checkpoints").exists(), process)
    kill(process)
    before.run("dvc", "repro", "train")
    _require_equal_to_uninterrupted(before, uninterrupted)
    before.run("dvc", "repro", "--force", "--single-item", "train")
    assert [run.info.status for run in before.runs()] == [
        "FINISHED",
        "FINISHED",
    ]  # forced: a run of its own


def test_run_without_checkpoint_is_reused(before: Project, uninterrupted: Project) -> None:
    _kill(before, lambda folder: (folder / STATE_FILE).exists(), "python -m stages.train", EACH_STEP)
    shutil.rmtree(before.root / ".checkpoints")
    before.stage("train")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_diverging_run_names_its_checkpoint(before: Project) -> None:
    before.set_params({"train.optimizer.learning_rate": 1e38, "train.ema_decay": 0.0})
    first, second = (before.stage("train", status=3, **EACH_STEP) for _ in range(2))
    assert f"The last checkpoint is retained in {_checkpoint(before)}" in first.stderr
    assert "resuming at epoch 1" in second.stderr
    assert first.stderr.splitlines()[-1] == second.stderr.splitlines()[-1]
    assert _only_run(before).info.status == "FAILED"
