"""Learning from unlabelled reviews too: a student of the teacher's probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.model.classifier import compute_probabilities, predict_logits
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import NO_LABEL, TokenizedReviews
from sentiment.training.checkpoint import STATE_FILE, Checkpoint, open_checkpoint
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.loop import TrainingResult, fit
from sentiment.training.self_training import fit_with_self_training
from sentiment.training.state import TrainingState
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer
from tests.training.test_loop import TRAIN, VOCABULARY

Splits = tuple[TokenizedReviews, TokenizedReviews, TokenizedReviews]

DROPOUT = {"words": 0.1, "embeddings": 0.0, "layers": 0.0, "head": 0.3}
MODEL = model_params(ngrams={"order": 2, "min_reviews": 2, "smoothing": 0.01, "weight": 0.5}, dropout=DROPOUT)


@pytest.fixture(scope="module")
def splits(reviews: pa.Table) -> Splits:
    """Real reviews as token ids: 80 to learn from, 40 to choose with, 80 without labels."""
    tokenizer = train_small_tokenizer(reviews["text"].to_pylist(), VOCABULARY)
    train, validation, others = (
        encode(tokenizer, reviews.take([row for row in range(200) if row % 5 in part]))
        for part in ((0, 1), (2,), (3, 4))
    )
    unlabelled = TokenizedReviews.from_arrays(others.ids, others.lengths, np.full(len(others), NO_LABEL))
    return train, validation, unlabelled


@pytest.fixture(scope="module")
def whole(splits: Splits) -> TrainingResult:
    """A run that nobody killed."""
    return _fit(splits)


class Killed(BaseException):
    """Stands for the signal: nothing in the code under test catches it."""


class KilledAt(Checkpoint):
    """Keeps every state, and ends the process that keeps it after a step of epoch 2."""

    def __init__(self, folder: Path, key: str, step: int | None, teachers_step: int | None = None) -> None:
        super().__init__(folder, key, minutes=0)
        self.step, self.teachers_step = step, teachers_step

    def part(self, name: str) -> Checkpoint:
        return KilledAt(self.folder / name, f"{self.fingerprint}/{name}", self.teachers_step)

    def save_if_due(self, state: TrainingState) -> None:
        super().save_if_due(state)
        if (len(state.epochs) + 1, len(state.steps)) == (2, self.step):
            raise Killed


def _fit(splits: Splits, checkpoint: Checkpoint | None = None, **changes: Any) -> TrainingResult:
    params = TrainParams.model_validate({**TRAIN, "unlabelled": "self_training", **changes})
    return fit_with_self_training(
        MODEL, params, TrainingData(VOCABULARY, *splits), on_epoch=lambda _: None, checkpoint=checkpoint
    )


def _require_equal(one: TrainingResult, other: TrainingResult) -> None:
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name


@pytest.mark.slow
def test_student_learns_anew_from_all_reviews_under_the_teachers_probabilities(
    splits: Splits, whole: TrainingResult
) -> None:
    train, validation, unlabelled = splits
    params = TrainParams.model_validate(TRAIN)
    teacher = fit(MODEL, params, TrainingData(VOCABULARY, train, validation), lambda _: None)
    joined = train.concatenate(unlabelled, compute_probabilities(predict_logits(teacher.model, unlabelled)))
    _require_equal(fit(MODEL, params, TrainingData(VOCABULARY, joined, validation), lambda _: None), whole)


def test_equal_runs_are_equal_bit_for_bit(splits: Splits, whole: TrainingResult) -> None:
    _require_equal(_fit(splits), whole)


@pytest.mark.slow
def test_ignored_reviews_change_nothing(splits: Splits, whole: TrainingResult) -> None:
    train, validation, _ = splits
    alone = fit(
        MODEL,
        TrainParams.model_validate(TRAIN),
        TrainingData(VOCABULARY, train, validation),
        lambda _: None,
    )
    _require_equal(_fit(splits, unlabelled="ignore"), alone)
    assert not torch.equal(alone.model.embedding.weight, whole.model.embedding.weight)


def test_only_the_students_epochs_are_passed_on_and_the_teachers_are_said(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[EpochMetrics] = []
    params = TrainParams.model_validate({**TRAIN, "unlabelled": "self_training"})
    fitted = fit_with_self_training(MODEL, params, TrainingData(VOCABULARY, *splits), on_epoch=seen.append)
    assert seen == fitted.epochs
    told = "\n".join(caplog.messages)
    assert "train: a teacher learns from 80 labelled reviews\ntrain, teacher, epoch 1: loss" in told
    assert "train: a student learns from these and 80 unlabelled reviews" in told


def test_without_unlabelled_reviews_nothing_is_trained(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    none = TokenizedReviews.from_lists([], [])
    with pytest.raises(
        UserError, match=r"train\.unlabelled: self_training asked for, but no source"
    ) as raised:
        _fit((*splits[:2], none))
    assert raised.value.exit_status == 2
    assert caplog.messages == []
    assert len(_fit((*splits[:2], none), unlabelled="ignore").epochs) == TRAIN["epochs"]


def test_unlabelled_reviews_of_another_vocabulary_are_refused_before_training(splits: Splits) -> None:
    other = TokenizedReviews.from_lists([[VOCABULARY]], [NO_LABEL])
    with pytest.raises(UserError, match="unlabelled split: token id 1000 is not in the model's vocabulary"):
        _fit((*splits[:2], other))


@pytest.mark.parametrize("steps", [(None, 3), (4, None)], ids=["teacher", "student"])
def test_resumed_training_equals_uninterrupted(
    steps: tuple[int | None, int | None], splits: Splits, whole: TrainingResult, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        _fit(splits, KilledAt(tmp_path, "key", *steps))
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2)), whole)


def test_run_killed_while_the_student_learns_finds_the_teacher_trained(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        _fit(splits, KilledAt(tmp_path, "key", step=4))
    caplog.clear()
    _fit(splits, Checkpoint(tmp_path, "key", 2))
    told = "\n".join(caplog.messages)
    assert "resuming at the end of epoch 2 (" in told
    assert "resuming at epoch 2, step 5 of 10 (" in told
    assert "train, teacher, epoch" not in told


def test_teachers_checkpoint_stays_when_the_teacher_diverges_and_goes_with_the_run(
    splits: Splits, tmp_path: Path
) -> None:
    optimizer = {"kind": "sgd", "learning_rate": 1e38, "momentum": 0.0, "weight_decay": 0.0, "l1": 0.0}
    with (
        pytest.raises(TrainingDivergedError, match="The last checkpoint stays in"),
        open_checkpoint(tmp_path / "root", "key", 0) as checkpoint,
    ):
        _fit(splits, checkpoint, optimizer=optimizer, clip={"kind": "none"})
    assert (tmp_path / "root/key/teacher" / STATE_FILE).exists()
    with open_checkpoint(tmp_path / "root", "key", 0):
        pass
    assert not (tmp_path / "root").exists()
