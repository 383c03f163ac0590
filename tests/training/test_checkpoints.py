"""A training run that is killed and started again ends as if it had never been killed."""

import math
import os
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from sentiment.errors import TrainingDivergedError
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import (
    KEPT_DAYS,
    STATE_FILE,
    Checkpoint,
    CorruptCheckpointError,
    open_checkpoint,
    read_checkpoint_file,
    write_checkpoint_file,
)
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import PACKAGE, compute_fingerprint
from sentiment.training.loop import TrainingResult, fit
from sentiment.training.state import TrainingState
from tests.model.small_model import model_params
from tests.training.test_loop import NEEDS_BF16, TRAIN, VOCABULARY

Splits = tuple[TokenizedReviews, TokenizedReviews]

MODEL = model_params(dropout={"words": 0.1, "embeddings": 0.1, "layers": 0.0, "head": 0.3})
STEPS = 10
"""Per epoch: 150 reviews in batches of 16."""


@pytest.fixture(scope="module")
def splits(reviews: pa.Table) -> Splits:
    """Made-up token ids of real reviews' lengths: 150 to learn from, 50 to choose with."""
    lengths = [min(len(text), 40) for text in reviews["text"].to_pylist()]
    ids = [[2 + (row * position) % 50 for position in range(length)] for row, length in enumerate(lengths)]
    labels = reviews["label"].to_pylist()
    parts = [row for row in range(200) if row % 4], [row for row in range(200) if row % 4 == 0]
    train, validation = (
        TokenizedReviews.from_lists([ids[row] for row in part], [labels[row] for row in part])
        for part in parts
    )
    return train, validation


@pytest.fixture(scope="module")
def whole(splits: Splits) -> TrainingResult:
    """A run that nobody killed."""
    return _fit(splits, ema_decay=0.9)


@pytest.fixture(scope="module")
def left(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What such a run leaves when it is killed after step 4 of epoch 2."""
    folder = tmp_path_factory.mktemp("left")
    _killed(folder, splits, epoch=2, step=4, ema_decay=0.9)
    return folder


@pytest.fixture
def folder(left: Path, tmp_path: Path) -> Path:
    """A copy of that."""
    return Path(shutil.copytree(left, tmp_path / "copy"))


class Killed(BaseException):
    """Stands for the signal: nothing in the code under test catches it."""


class KilledAt(Checkpoint):
    """Keeps every state, and ends the process that keeps it after a step."""

    def __init__(self, folder: Path, epoch: int, step: int) -> None:
        super().__init__(folder, "key", minutes=0)
        self.at = (epoch, step)

    def save_if_due(self, state: TrainingState) -> None:
        super().save_if_due(state)
        if (len(state.epochs) + 1, len(state.steps)) == self.at:
            raise Killed


def _fit(splits: Splits, checkpoint: Checkpoint | None = None, **changes: Any) -> TrainingResult:
    params = TrainParams.model_validate({**TRAIN, "epochs": 2, **changes})
    return fit(
        MODEL, params, TrainingData(VOCABULARY, *splits), on_epoch=lambda _: None, checkpoint=checkpoint
    )


def _killed(folder: Path, splits: Splits, epoch: int, step: int, **changes: Any) -> None:
    with pytest.raises(Killed):
        _fit(splits, KilledAt(folder, epoch, step), **changes)


def _reproducible(epoch: EpochMetrics) -> dict[str, Any]:
    return {name: value for name, value in asdict(epoch).items() if name != "tokens_per_second"}


def _require_equal(resumed: TrainingResult, whole: TrainingResult) -> None:
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert list(map(_reproducible, resumed.epochs)) == list(map(_reproducible, whole.epochs))
    assert resumed.best.epoch == whole.best.epoch


SGD = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "l1": 0.0}
ADAMW = {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "l1": 1e-4}
COSINE = {"kind": "cosine", "warmup_steps": 5, "end_factor": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9},
        {"optimizer": SGD},
        {"optimizer": {**SGD, "momentum": 0.0}},
        {"optimizer": ADAMW, "schedule": COSINE, "ema_decay": 0.9},
        pytest.param({"precision": "bf16"}, marks=NEEDS_BF16),
        {"clip": {"kind": "percentile", "percentile": 50.0}},
    ],
    ids=["adam", "ema_decay", "momentum", "sgd", "adamw", "bf16", "percentile"],
)
def test_resumed_training_equals_uninterrupted(
    changes: dict[str, Any], splits: Splits, tmp_path: Path
) -> None:
    _killed(tmp_path, splits, epoch=2, step=4, **changes)
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), **changes), _fit(splits, **changes))


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (1, STEPS), (2, 1), (2, STEPS)])
def test_no_step_is_a_bad_one_to_be_killed_at(
    epoch: int, step: int, splits: Splits, whole: TrainingResult, tmp_path: Path
) -> None:
    _killed(tmp_path, splits, epoch, step, ema_decay=0.9)
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), ema_decay=0.9), whole)


def test_killed_again_and_again(splits: Splits, whole: TrainingResult, tmp_path: Path) -> None:
    for epoch, step in ((1, 3), (1, 4), (2, 9)):
        _killed(tmp_path, splits, epoch, step, ema_decay=0.9)
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), ema_decay=0.9), whole)


def test_best_weights_are_those_of_an_epoch_before_the_kill(splits: Splits, tmp_path: Path) -> None:
    rough = {"optimizer": {"kind": "adam", "learning_rate": 0.3, "weight_decay": 0.0, "l1": 0.0}, "epochs": 6}
    whole = _fit(splits, **rough)
    assert whole.best.epoch < 6, "the case needs a best epoch that is not the last"
    _killed(tmp_path, splits, epoch=6, step=3, **rough)
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{whole.best.epoch}.safetensors"]
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), **rough), whole)


def test_run_that_is_over_is_not_trained_again(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _fit(splits, Checkpoint(tmp_path, "key", 2))
    steps: list[int] = []
    params = TrainParams.model_validate({**TRAIN, "epochs": 2})
    found = Checkpoint(tmp_path, "key", 2)
    assert [epoch.epoch for epoch in found.epochs] == [1, 2]
    again = fit(
        MODEL,
        params,
        TrainingData(VOCABULARY, *splits),
        on_epoch=lambda epoch: steps.append(epoch.epoch),
        checkpoint=found,
    )
    assert steps == []
    _require_equal(again, whole)
    assert "resuming at the end of epoch 2" in caplog.text


def test_resumed_run_says_where(splits: Splits, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = time.strftime("%H:%M", time.localtime((folder / STATE_FILE).stat().st_mtime))
    _fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9)
    assert f"resuming at epoch 2, step 5 of {STEPS} (checkpoint of {clock})" in caplog.messages


def test_within_an_epoch_states_are_minutes_apart(splits: Splits, tmp_path: Path) -> None:
    written: list[float] = []

    class Watched(Checkpoint):
        def save_if_due(self, state: TrainingState) -> None:
            super().save_if_due(state)
            written.append((self.folder / STATE_FILE).stat().st_mtime if self.exists else 0)

    _fit(splits, Watched(tmp_path, "key", minutes=60), epochs=1)
    assert written == [0] * STEPS
    assert read_checkpoint_file(tmp_path / STATE_FILE)["state"]["steps"] == []


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(bytes(content))


SPOILED = {
    "truncated": _truncated,
    "flipped": _flipped,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not a checkpoint"),
}


@pytest.mark.parametrize("name", [STATE_FILE, "best-1.safetensors"])
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_torn_checkpoint_is_told_in_one_line_and_ignored(
    spoil: Any, name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder / name)
    assert Checkpoint(folder, "key", 2).epochs == []
    (told,) = caplog.messages
    assert told.startswith(f"the checkpoint cannot be used, training starts anew: {folder / name}: ")
    assert "\n" not in told


def test_training_anew_replaces_what_was_torn(splits: Splits, whole: TrainingResult, folder: Path) -> None:
    _flipped(folder / "best-1.safetensors")
    _require_equal(_fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9), whole)
    assert len(Checkpoint(folder, "key", 2).epochs) == len(whole.epochs)


def test_missing_best_weights_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "best-1.safetensors").unlink()
    assert Checkpoint(folder, "key", 2).epochs == []
    assert "best-1.safetensors" in caplog.text


def test_checkpoint_of_another_run_is_told_and_ignored(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Checkpoint(folder, "another key", 2).epochs == []
    assert "it belongs to another training run" in caplog.text


def test_kill_while_writing_leaves_the_old_state(splits: Splits, whole: TrainingResult, folder: Path) -> None:
    half = (folder / STATE_FILE).read_bytes()[:1000]
    (folder / f".{STATE_FILE}.partial").write_bytes(half)
    (folder / "best-2.safetensors").write_bytes(half)
    _require_equal(_fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9), whole)


def test_full_disk_is_told_and_training_goes_on(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "folder", "key", 0)
    (tmp_path / "folder").write_text("a file where the folder should be")
    _require_equal(_fit(splits, checkpoint, epochs=1), _fit(splits, epochs=1))
    assert "no checkpoint was written, training goes on: " in caplog.text


def test_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = {
        "floats": [0.1 + 0.2, 5e-324, 1.7976931348623157e308, math.inf, -0.0],
        "nested": {"half": torch.randn(3, 2).bfloat16(), "scalar": torch.tensor(7), "none": None},
        "empty": torch.empty(0),
        "transposed": torch.randn(3, 2).t(),
    }
    write_checkpoint_file(tmp_path / "state", state)
    found = read_checkpoint_file(tmp_path / "state")
    assert list(map(repr, found["floats"])) == list(map(repr, state["floats"]))
    assert found["nested"]["none"] is None
    assert found["nested"]["half"].dtype == torch.bfloat16
    assert torch.equal(found["nested"]["half"], state["nested"]["half"])
    assert torch.equal(found["nested"]["scalar"], state["nested"]["scalar"])
    assert torch.equal(found["transposed"], state["transposed"])
    assert found["empty"].shape == (0,)


def test_safetensors_of_somebody_else_is_no_snapshot(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint_file(tmp_path / "model.safetensors")


def test_checkpoint_goes_when_the_run_is_over(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    with open_checkpoint(root, "key", 2) as checkpoint:
        assert checkpoint is not None
        checkpoint.note("log", "17")
        assert (root / "key").is_dir()
    assert not root.exists()


def test_notes_outlive_the_process_before_there_is_a_state(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "key", 2).note("log", "17")
    assert Checkpoint(tmp_path, "key", 2).notes == {"log": "17"}
    (tmp_path / "notes.json").write_text("{")
    assert Checkpoint(tmp_path, "key", 2).notes == {}


def _diverge(root: Path, splits: Splits, learning_rate: float) -> str:
    optimizer = {
        "kind": "sgd",
        "learning_rate": learning_rate,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "l1": 0.0,
    }
    with pytest.raises(TrainingDivergedError) as error, open_checkpoint(root, "key", 0) as checkpoint:
        _fit(splits, checkpoint, optimizer=optimizer, clip={"kind": "none"})
    return str(error.value)


def test_diverging_run_keeps_its_last_checkpoint_and_ends_there_again(splits: Splits, tmp_path: Path) -> None:
    first, second = (_diverge(tmp_path, splits, learning_rate=1e38) for _ in range(2))
    assert re.match(rf"epoch 1, step \d of {STEPS}: the (loss|gradient)", first)
    assert f"The last checkpoint stays in {tmp_path / 'key'}" in first
    assert second == first


def test_failure_before_the_first_state_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no store"), open_checkpoint(tmp_path / "root", "key", 2):
        raise ValueError("no store")
    assert list(tmp_path.iterdir()) == []


def test_second_process_on_the_same_run_goes_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_checkpoint(tmp_path, "key", 2) as first:
        with open_checkpoint(tmp_path, "key", 2) as second, open_checkpoint(tmp_path, "other", 2) as other:
            assert first is not None
            assert second is None
            assert other is not None
        assert (tmp_path / "key").is_dir()
    assert "another process trains the same configuration" in caplog.text


def test_checkpoints_that_nobody_came_back_to_are_removed(tmp_path: Path) -> None:
    past = time.time() - (KEPT_DAYS + 1) * 24 * 3600
    for name in ("old", "recent", "key"):
        (tmp_path / name).mkdir()
        (tmp_path / name / STATE_FILE).write_bytes(b"")
        os.utime(tmp_path / name, (past, past) if name != "recent" else None)
    with pytest.raises(Killed), open_checkpoint(tmp_path, "key", 2):
        raise Killed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "recent"]


def test_key_is_of_params_data_and_code(splits: Splits, tmp_path: Path) -> None:
    def key(package: Path = PACKAGE, **changes: Any) -> str:
        given = {"model": MODEL, "params": TrainParams.model_validate(TRAIN), "reviews": reviews}
        return str(compute_fingerprint(**{**given, **changes}, package=package))

    def other(**changes: Any) -> TrainingData:
        return replace(reviews, **changes)

    reviews = TrainingData(VOCABULARY, *splits, unlabelled=splits[1])

    changed = tmp_path / "sentiment"
    shutil.copytree(PACKAGE, changed)
    assert key(changed) == key()
    (changed / "tracking/store.py").write_text("# decides no weight")
    (changed / "training/__pycache__").mkdir(exist_ok=True)
    (changed / "training/__pycache__/loop.pyc").write_bytes(b"compiled")
    assert key(changed) == key()
    (changed / "training/clipping.py").write_text("# another code")
    learning = TrainParams.model_validate({**TRAIN, "unlabelled": "self_training"})
    others = {
        key(changed),
        key(model=model_params()),
        key(params=TrainParams.model_validate({**TRAIN, "seed": 2})),
        key(params=TrainParams.model_validate({**TRAIN, "batch_size": 8})),
        key(reviews=other(vocabulary_size=VOCABULARY + 1)),
        key(reviews=other(train=splits[1])),
        key(reviews=other(validation=splits[0])),
        key(params=learning),
        key(params=learning, reviews=other(unlabelled=splits[0])),
    }
    assert len(others) == 9
    assert key() not in others
    assert key(reviews=other(unlabelled=splits[0])) == key(), "nobody reads them"
