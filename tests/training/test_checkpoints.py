"""Checkpoints: a killed training run resumes with the same result as an uninterrupted one."""

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
from sentiment.training.checkpoint import RETENTION_DAYS, STATE_FILE, Checkpoint, open_checkpoint
from sentiment.training.checkpoint_file import (
    CorruptCheckpointError,
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
    """Synthetic token ids with the lengths of real reviews: 150 for training, 50 for validation."""
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
def uninterrupted(splits: Splits) -> TrainingResult:
    """Result of an uninterrupted run."""
    return _fit(splits, ema_decay=0.9)


@pytest.fixture(scope="module")
def interrupted(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a run that was killed after step 4 of epoch 2."""
    folder = tmp_path_factory.mktemp("interrupted")
    _killed(folder, splits, epoch=2, step=4, ema_decay=0.9)
    return folder


@pytest.fixture
def folder(interrupted: Path, tmp_path: Path) -> Path:
    """Copy of that checkpoint, for a test to change."""
    return Path(shutil.copytree(interrupted, tmp_path / "copy"))


class Killed(BaseException):
    """Stands for SIGKILL: the code under test does not catch it."""


class KilledAt(Checkpoint):
    """Saves the state after every step, and raises Killed after a given step."""

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


def _require_equal(resumed: TrainingResult, uninterrupted: TrainingResult) -> None:
    for name, weight in uninterrupted.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert list(map(_reproducible, resumed.epochs)) == list(map(_reproducible, uninterrupted.epochs))
    assert resumed.best.epoch == uninterrupted.best.epoch


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
def test_run_killed_after_any_step_resumes(
    epoch: int, step: int, splits: Splits, uninterrupted: TrainingResult, tmp_path: Path
) -> None:
    _killed(tmp_path, splits, epoch, step, ema_decay=0.9)
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), ema_decay=0.9), uninterrupted)


def test_run_killed_several_times_resumes(
    splits: Splits, uninterrupted: TrainingResult, tmp_path: Path
) -> None:
    for epoch, step in ((1, 3), (1, 4), (2, 9)):
        _killed(tmp_path, splits, epoch, step, ema_decay=0.9)
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), ema_decay=0.9), uninterrupted)


def test_best_weights_of_an_epoch_before_the_kill_are_restored(splits: Splits, tmp_path: Path) -> None:
    rough = {"optimizer": {"kind": "adam", "learning_rate": 0.3, "weight_decay": 0.0, "l1": 0.0}, "epochs": 6}
    uninterrupted = _fit(splits, **rough)
    assert uninterrupted.best.epoch < 6, "the case needs a best epoch that is not the last"
    _killed(tmp_path, splits, epoch=6, step=3, **rough)
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{uninterrupted.best.epoch}.safetensors"]
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2), **rough), uninterrupted)


def test_completed_run_is_not_trained_again(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uninterrupted = _fit(splits, Checkpoint(tmp_path, "key", 2))
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
    _require_equal(again, uninterrupted)
    assert "resuming at the end of epoch 2" in caplog.text


def test_resumed_run_logs_its_position(
    splits: Splits, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = time.strftime("%H:%M", time.localtime((folder / STATE_FILE).stat().st_mtime))
    _fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9)
    assert f"resuming at epoch 2, step 5 of {STEPS} (checkpoint of {clock})" in caplog.messages


def test_states_within_an_epoch_are_saved_at_an_interval(splits: Splits, tmp_path: Path) -> None:
    written: list[float] = []

    class Watched(Checkpoint):
        def save_if_due(self, state: TrainingState) -> None:
            super().save_if_due(state)
            written.append((self.folder / STATE_FILE).stat().st_mtime if self.has_state else 0)

    _fit(splits, Watched(tmp_path, "key", minutes=60), epochs=1)
    assert written == [0] * STEPS
    assert read_checkpoint_file(tmp_path / STATE_FILE)["state"]["steps"] == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(bytes(content))


CORRUPTIONS = {
    "truncated": _truncate,
    "bit flipped": _flip_bit,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not a checkpoint"),
}


@pytest.mark.parametrize("name", [STATE_FILE, "best-1.safetensors"])
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corrupt_checkpoint_is_ignored_with_a_warning(
    corrupt: Any, name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt(folder / name)
    assert Checkpoint(folder, "key", 2).epochs == []
    (message,) = caplog.messages
    assert message.startswith(
        f"cannot use the checkpoint, training starts from the beginning: {folder / name}: "
    )
    assert "\n" not in message


def test_training_from_the_beginning_replaces_a_corrupt_checkpoint(
    splits: Splits, uninterrupted: TrainingResult, folder: Path
) -> None:
    _flip_bit(folder / "best-1.safetensors")
    _require_equal(_fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9), uninterrupted)
    assert len(Checkpoint(folder, "key", 2).epochs) == len(uninterrupted.epochs)


def test_missing_best_weights_are_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "best-1.safetensors").unlink()
    assert Checkpoint(folder, "key", 2).epochs == []
    assert "best-1.safetensors" in caplog.text


def test_checkpoint_of_another_run_is_ignored_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Checkpoint(folder, "another fingerprint", 2).epochs == []
    assert "it is of another training run" in caplog.text


def test_kill_during_a_write_leaves_the_previous_state(
    splits: Splits, uninterrupted: TrainingResult, folder: Path
) -> None:
    half = (folder / STATE_FILE).read_bytes()[:1000]
    (folder / f".{STATE_FILE}.partial").write_bytes(half)
    (folder / "best-2.safetensors").write_bytes(half)
    _require_equal(_fit(splits, Checkpoint(folder, "key", 2), ema_decay=0.9), uninterrupted)


def test_training_continues_with_a_warning_on_a_full_disk(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "folder", "key", 0)
    (tmp_path / "folder").write_text("a file where the folder should be")
    _require_equal(_fit(splits, checkpoint, epochs=1), _fit(splits, epochs=1))
    assert "cannot write a checkpoint, training continues without it: " in caplog.text


def test_state_is_read_back_exactly(tmp_path: Path) -> None:
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


def test_other_safetensors_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint_file(tmp_path / "model.safetensors")


def test_checkpoint_is_deleted_when_the_run_completes(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    with open_checkpoint(root, "key", 2) as checkpoint:
        assert checkpoint is not None
        checkpoint.write_note("log", "17")
        assert (root / "key").is_dir()
    assert not root.exists()


def test_notes_are_retained_before_the_first_state(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "key", 2).write_note("log", "17")
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


def test_diverging_run_retains_its_last_checkpoint_and_diverges_there_again(
    splits: Splits, tmp_path: Path
) -> None:
    first, second = (_diverge(tmp_path, splits, learning_rate=1e38) for _ in range(2))
    assert re.match(rf"epoch 1, step \d of {STEPS}: the (loss|gradient)", first)
    assert f"The last checkpoint is retained in {tmp_path / 'key'}" in first
    assert second == first


def test_failure_before_the_first_state_deletes_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no store"), open_checkpoint(tmp_path / "root", "key", 2):
        raise ValueError("no store")
    assert list(tmp_path.iterdir()) == []


def test_second_process_on_the_same_run_has_no_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_checkpoint(tmp_path, "key", 2) as first:
        with open_checkpoint(tmp_path, "key", 2) as second, open_checkpoint(tmp_path, "other", 2) as other:
            assert first is not None
            assert second is None
            assert other is not None
        assert (tmp_path / "key").is_dir()
    assert "another process trains the same configuration" in caplog.text


def test_stale_checkpoints_are_deleted(tmp_path: Path) -> None:
    past = time.time() - (RETENTION_DAYS + 1) * 24 * 3600
    for name in ("old", "recent", "key"):
        (tmp_path / name).mkdir()
        (tmp_path / name / STATE_FILE).write_bytes(b"")
        os.utime(tmp_path / name, (past, past) if name != "recent" else None)
    with pytest.raises(Killed), open_checkpoint(tmp_path, "key", 2):
        raise Killed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "recent"]


def test_fingerprint_depends_on_params_data_and_code(splits: Splits, tmp_path: Path) -> None:
    def fingerprint(package: Path = PACKAGE, **changes: Any) -> str:
        given = {"model": MODEL, "params": TrainParams.model_validate(TRAIN), "reviews": reviews}
        return str(compute_fingerprint(**{**given, **changes}, package=package))

    def change(**changes: Any) -> TrainingData:
        return replace(reviews, **changes)

    reviews = TrainingData(VOCABULARY, *splits, unlabelled=splits[1])

    changed = tmp_path / "sentiment"
    shutil.copytree(PACKAGE, changed)
    assert fingerprint(changed) == fingerprint()
    (changed / "tracking/store.py").write_text("# does not affect the weights")
    (changed / "training/__pycache__").mkdir(exist_ok=True)
    (changed / "training/__pycache__/loop.pyc").write_bytes(b"compiled")
    assert fingerprint(changed) == fingerprint()
    (changed / "training/clipping.py").write_text("# changed")
    learning = TrainParams.model_validate({**TRAIN, "unlabelled": "self_training"})
    others = {
        fingerprint(changed),
        fingerprint(model=model_params()),
        fingerprint(params=TrainParams.model_validate({**TRAIN, "seed": 2})),
        fingerprint(params=TrainParams.model_validate({**TRAIN, "batch_size": 8})),
        fingerprint(reviews=change(vocabulary_size=VOCABULARY + 1)),
        fingerprint(reviews=change(train=splits[1])),
        fingerprint(reviews=change(validation=splits[0])),
        fingerprint(params=learning),
        fingerprint(params=learning, reviews=change(unlabelled=splits[0])),
    }
    assert len(others) == 9
    assert fingerprint() not in others
    assert fingerprint(reviews=change(unlabelled=splits[0])) == fingerprint(), "they are not used"
