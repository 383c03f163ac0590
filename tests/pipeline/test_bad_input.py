"""Input errors: a message with file and problem, exit status 2, no file changed, no traceback."""

import json
import socket
from pathlib import Path

import pytest

from tests.pipeline.broken_inputs import CASES, Result
from tests.project import Project


@pytest.mark.parametrize("stage", ["tokenize", "train", "tune", "evaluate"])
def test_broken_input_is_named_and_nothing_is_written(stage: str, project: Project) -> None:
    before = project.tree()
    printed = project.run("python", "-m", "tests.pipeline.broken_inputs", stage).stdout.splitlines()
    cases = [case for case in CASES if case.stage == stage]
    for case, line in zip(cases, printed, strict=True):
        label = f"{case.file}, {case.corrupt.__name__}"
        result = Result(**json.loads(line))
        assert result.status == 2, f"{label}: {result.stderr}"
        assert case.message in result.stderr, label
        assert str(Path(case.file).parent) in result.stderr, label
        assert "Traceback" not in result.stderr, label
        assert result.unchanged, label
    assert project.tree() == before  # each file was put back: no case saw another one's
    if (project.root / "mlruns/mlflow.db").exists():  # parameters that do not suit the data fail a run
        runs = project.runs()
        assert {run.info.status for run in runs} <= {"FAILED"}
        assert all(run.data.tags["error"].startswith("UserError: train.") for run in runs)


def test_all_errors_of_params_are_reported_before_any_file_is_changed(project: Project) -> None:
    project.set_params({"train.clip.threshold": -1, "train.epoch": 3, "model.layers": "two", "seed": 1})
    before = project.tree()
    for command in (("sentiment", "check"), ("python", "-m", "stages.train")):
        failed = project.run(*command, status=2)
        assert "params.yaml: 4 validation errors" in failed.stderr
        assert "train.clip.threshold: must be greater than 0 (found -1)" in failed.stderr
        assert "train.epoch: unknown key" in failed.stderr
        assert "model.layers: must be a valid integer (found 'two')" in failed.stderr
        assert "seed: unknown key" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert project.tree() == before


def test_divergence_exits_with_status_3_and_no_model(project: Project) -> None:
    project.set_params(
        {
            "train.optimizer": {
                "kind": "sgd",
                "learning_rate": 1e39,
                "momentum": 0.0,
                "weight_decay": 0.0,
                "l1": 0.0,
            },
            "train.clip": {"kind": "none"},
            "train.precision": "fp32",
            "tune.space": {},
        }
    )
    before = project.tree()
    failed = project.stage("train", status=3)
    assert "is not finite" in failed.stderr or "the loss is" in failed.stderr
    assert "epoch 1, step" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert project.tree() == before
    (run,) = project.runs("tags.stage = 'train'")
    assert run.info.status == "FAILED"
    assert "TrainingDivergedError" in run.data.tags["error"]
    failed = project.stage("tune", status=2)
    assert "3 trials failed, tune.max_failed stops the search" in failed.stderr
    assert {run.info.status for run in project.runs("tags.stage = 'tune'")} == {"FAILED"}


def test_unreachable_tracking_server_hides_the_password(project: Project) -> None:
    uri = "http://user:secret-word@127.0.0.1:9"
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    before = project.tree()
    failed = project.stage("train", status=2, MLFLOW_TRACKING_URI=uri, **quick)
    assert "MLFLOW_TRACKING_URI" in failed.stderr
    assert "secret-word" not in failed.stderr + failed.stdout
    assert "Traceback" not in failed.stderr
    assert project.tree() == before


@pytest.mark.parametrize(
    "uri", ["foo://user:secret-word@host", "mssql+nodriver://user:secret-word@127.0.0.1/x"]
)
def test_unusable_address_hides_the_password(uri: str, project: Project) -> None:
    failed = project.stage("train", status=2, MLFLOW_TRACKING_URI=uri)
    assert "MLFLOW_TRACKING_URI" in failed.stderr
    assert "secret-word" not in failed.stderr + failed.stdout
    assert "Traceback" not in failed.stderr


def test_port_in_use_is_reported_before_the_server_starts(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = project.run("sentiment", "ui", "--port", port, status=2)
    assert f"port {port} is in use" in failed.stderr


def test_predict_names_unreadable_input(project: Project) -> None:
    failed = project.run("sentiment", "predict", "--model", "models/baseline", "Fine.", status=2)
    assert "models/baseline: contains no model with its tokenizer" in failed.stderr
    failed = project.run("sh", "-c", r"printf '\377\376' | sentiment predict", status=2)
    assert "standard input: not UTF-8 text" in failed.stderr
    assert "Traceback" not in failed.stderr
