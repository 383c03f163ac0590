"""A user's mistake: a message that says what is wrong and where, status 2, no file touched, no traceback."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.project import Project


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _one_class(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.compute.equal(table["label"], 1)), path)


def _empty(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def _missing(path: Path) -> None:
    path.unlink()


def _other_columns(path: Path) -> None:
    table = pq.read_table(path).select(["text", "label"])
    pq.write_table(table.rename_columns(["words", "label"]), path)


def _one_label(path: Path) -> None:
    np.save(path, np.ones_like(np.load(path)))


def _shorter(path: Path) -> None:
    np.save(path, np.load(path)[:-5])


def _other_model(path: Path) -> None:
    content = json.loads(path.read_text())
    content["model"]["hidden_units"] += 1
    path.write_text(json.dumps(content))


CASES: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("tokenize", "data/reviews/train.parquet", _missing, "no such file"),
    ("tokenize", "data/reviews/train.parquet", _torn, "not a whole Parquet file"),
    ("tokenize", "data/reviews/train.parquet", _zero_bytes, "not a whole Parquet file"),
    ("tokenize", "data/reviews/train.parquet", _flipped_bit, "not a whole Parquet file"),
    ("tokenize", "data/reviews/validation.parquet", _flipped_bit, "not a whole Parquet file"),
    ("tokenize", "data/reviews/train.parquet", _one_class, "expected reviews with labels 0 and 1, found [1]"),
    ("tokenize", "data/reviews/validation.parquet", _empty, "no reviews in it"),
    ("tokenize", "data/reviews/validation.parquet", _other_columns, "found words (string), label (int8)"),
    ("tokenize", "data/reviews/unlabelled.parquet", _missing, "no such file"),
    ("tokenize", "data/reviews/unlabelled.parquet", _torn, "not a whole Parquet file"),
    ("train", "data/tokens/tokenizer.json", _missing, "no such file"),
    ("train", "data/tokens/tokenizer.json", _torn, "not a whole tokenizer file"),
    ("train", "data/tokens/train/ids.npy", _missing, "no such file"),
    ("train", "data/tokens/train/ids.npy", _torn, "a torn token file"),
    ("train", "data/tokens/train/ids.npy", _zero_bytes, "a torn token file"),
    ("train", "data/tokens/train/ids.npy", _shorter, "do not fit each other"),
    ("train", "data/tokens/unlabelled/ids.npy", _missing, "no such file"),
    ("tune", "data/tokens/validation/labels.npy", _one_label, "found 1 alone"),
    ("tune", "data/tokens/train/digest.json", _zero_bytes, "a torn token file"),
    ("evaluate", "models/tuned/model.safetensors", _missing, "no such file"),
    ("evaluate", "models/tuned/model.safetensors", _torn, "not a whole safetensors file"),
    ("evaluate", "models/baseline/config.json", _torn, "not the configuration of a model"),
    ("evaluate", "models/baseline/config.json", _other_model, "weights and configuration do not fit"),
    ("evaluate", "data/reviews/test.parquet", _torn, "not a whole Parquet file"),
    ("evaluate", "data/reviews/test.parquet", _one_class, "expected reviews with labels 0 and 1, found [1]"),
]


@pytest.mark.parametrize(
    ("stage", "file", "spoil", "message"), CASES, ids=lambda value: getattr(value, "__name__", value)
)
def test_spoiled_input(
    stage: str, file: str, spoil: Callable[[Path], None], message: str, project: Project
) -> None:
    spoil(project.root / file)
    before = project.tree()
    failed = project.stage(stage, status=2)
    assert message in failed.stderr
    assert str(Path(file).parent) in failed.stderr
    assert "Traceback" not in failed.stderr
    assert project.tree() == before


def test_every_fault_of_params_at_once_before_any_file_is_touched(project: Project) -> None:
    project.set_params({"train.clip.threshold": -1, "train.epoch": 3, "model.layers": "two", "seed": 1})
    before = project.tree()
    for command in (("sentiment", "check"), ("python", "-m", "stages.train")):
        failed = project.run(*command, status=2)
        assert "params.yaml: 4 faults" in failed.stderr
        assert "train.clip.threshold: greater than 0 (found -1)" in failed.stderr
        assert "train.epoch: unknown key" in failed.stderr
        assert "model.layers: a valid integer (found 'two')" in failed.stderr
        assert "seed: unknown key" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert project.tree() == before


def test_schedule_longer_than_the_run_ends_before_the_first_step(project: Project) -> None:
    project.set_params({"train.schedule.warmup_steps": 1000})
    before = project.tree()
    failed = project.stage("train", status=2)
    assert "train.schedule.warmup_steps: 1000, but the run has 8 steps (2 epochs of 4)" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert project.tree() == before


def test_self_training_without_unlabelled_reviews_trains_nothing(project: Project) -> None:
    project.set_params({"train.unlabelled": "self_training"})
    before = project.tree()
    for stage in ("train", "tune"):
        failed = project.stage(stage, status=2)
        assert "no source has unlabelled reviews; kind imdb has" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert project.tree() == before


def test_divergence_ends_with_status_3_and_no_model(project: Project) -> None:
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_device_that_is_not_there_trains_nothing(project: Project) -> None:
    project.set_params({"train.device": "cuda"})
    before = project.tree()
    for stage in ("train", "tune"):
        failed = project.stage(stage, status=2)
        assert "train.device: cuda asked for" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert not project.runs(f"tags.stage = '{stage}'")
    assert project.tree() == before


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


def test_taken_port_is_told_before_the_server_starts(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = project.run("sentiment", "ui", "--port", port, status=2)
    assert f"port {port} is taken" in failed.stderr


def test_predict_names_what_it_cannot_read(project: Project) -> None:
    failed = project.run("sentiment", "predict", "--model", "models/baseline", "Fine.", status=2)
    assert "models/baseline: no model with its tokenizer there" in failed.stderr
    failed = project.run("sh", "-c", r"printf '\377\376' | sentiment predict", status=2)
    assert "standard input: not UTF-8 text" in failed.stderr
    assert "Traceback" not in failed.stderr
