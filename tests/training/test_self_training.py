"""Self-training: the final model is trained on the pseudo-labels of the initial model."""

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
    """Real reviews as token ids: 80 for training, 40 for validation, 80 unlabelled."""
    tokenizer = train_small_tokenizer(reviews["text"].to_pylist(), VOCABULARY)
    train, validation, others = (
        encode(tokenizer, reviews.take([row for row in range(200) if row % 5 in part]))
        for part in ((0, 1), (2,), (3, 4))
    )
    unlabelled = TokenizedReviews.from_arrays(others.ids, others.lengths, np.full(len(others), NO_LABEL))
    return train, validation, unlabelled


@pytest.fixture(scope="module")
def uninterrupted(splits: Splits) -> TrainingResult:
    """Result of an uninterrupted run."""
    return _fit(splits)


class Killed(BaseException):
    """Stands for SIGKILL: the code under test does not catch it."""


class KilledAt(Checkpoint):
    """Saves the state after every step, and raises Killed after a step of epoch 2."""

    def __init__(self, folder: Path, key: str, step: int | None, initial_step: int | None = None) -> None:
        super().__init__(folder, key, minutes=0)
        self.step, self.initial_step = step, initial_step

    def open_nested(self, name: str) -> Checkpoint:
        return KilledAt(self.folder / name, f"{self.fingerprint}/{name}", self.initial_step)

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
def test_final_model_is_trained_from_scratch_on_pseudo_labels(
    splits: Splits, uninterrupted: TrainingResult
) -> None:
    train, validation, unlabelled = splits
    params = TrainParams.model_validate(TRAIN)
    initial = fit(MODEL, params, TrainingData(VOCABULARY, train, validation), lambda _: None)
    joined = train.concatenate(unlabelled, compute_probabilities(predict_logits(initial.model, unlabelled)))
    _require_equal(
        fit(MODEL, params, TrainingData(VOCABULARY, joined, validation), lambda _: None), uninterrupted
    )


def test_self_training_is_deterministic(splits: Splits, uninterrupted: TrainingResult) -> None:
    _require_equal(_fit(splits), uninterrupted)


@pytest.mark.slow
def test_ignored_unlabelled_reviews_do_not_affect_the_model(
    splits: Splits, uninterrupted: TrainingResult
) -> None:
    train, validation, _ = splits
    alone = fit(
        MODEL,
        TrainParams.model_validate(TRAIN),
        TrainingData(VOCABULARY, train, validation),
        lambda _: None,
    )
    _require_equal(_fit(splits, unlabelled="ignore"), alone)
    assert not torch.equal(alone.model.embedding.weight, uninterrupted.model.embedding.weight)


def test_epochs_of_the_final_model_are_reported_and_those_of_the_initial_model_logged(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[EpochMetrics] = []
    params = TrainParams.model_validate({**TRAIN, "unlabelled": "self_training"})
    result = fit_with_self_training(MODEL, params, TrainingData(VOCABULARY, *splits), on_epoch=seen.append)
    assert seen == result.epochs
    messages = "\n".join(caplog.messages)
    assert (
        "train: training the initial model on 80 labelled reviews\ntrain, initial model, epoch 1: loss"
        in messages
    )
    assert "train: training the final model on these and 80 pseudo-labelled reviews" in messages


def test_self_training_without_unlabelled_reviews_is_an_error(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    none = TokenizedReviews.from_lists([], [])
    with pytest.raises(
        UserError, match=r"train\.unlabelled: self_training requires unlabelled reviews"
    ) as raised:
        _fit((*splits[:2], none))
    assert raised.value.exit_status == 2
    assert caplog.messages == []
    assert len(_fit((*splits[:2], none), unlabelled="ignore").epochs) == TRAIN["epochs"]


def test_unlabelled_token_ids_outside_the_vocabulary_are_an_error_before_training(splits: Splits) -> None:
    other = TokenizedReviews.from_lists([[VOCABULARY]], [NO_LABEL])
    with pytest.raises(UserError, match="unlabelled split: token id 1000 is not in the model's vocabulary"):
        _fit((*splits[:2], other))


@pytest.mark.parametrize("steps", [(None, 3), (4, None)], ids=["initial", "final"])
def test_resumed_training_equals_uninterrupted(
    steps: tuple[int | None, int | None], splits: Splits, uninterrupted: TrainingResult, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        _fit(splits, KilledAt(tmp_path, "key", *steps))
    _require_equal(_fit(splits, Checkpoint(tmp_path, "key", 2)), uninterrupted)


def test_run_killed_during_the_final_model_does_not_repeat_the_initial_model(
    splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        _fit(splits, KilledAt(tmp_path, "key", step=4))
    caplog.clear()
    _fit(splits, Checkpoint(tmp_path, "key", 2))
    messages = "\n".join(caplog.messages)
    assert "resuming at the end of epoch 2 (" in messages
    assert "resuming at epoch 2, step 5 of 10 (" in messages
    assert "train, initial model, epoch" not in messages


def test_initial_models_checkpoint_is_retained_after_divergence_and_deleted_on_completion(
    splits: Splits, tmp_path: Path
) -> None:
    optimizer = {"kind": "sgd", "learning_rate": 1e38, "momentum": 0.0, "weight_decay": 0.0, "l1": 0.0}
    with (
        pytest.raises(TrainingDivergedError, match="The last checkpoint is retained in"),
        open_checkpoint(tmp_path / "root", "key", 0) as checkpoint,
    ):
        _fit(splits, checkpoint, optimizer=optimizer, clip={"kind": "none"})
    assert (tmp_path / "root/key/initial" / STATE_FILE).exists()
    with open_checkpoint(tmp_path / "root", "key", 0):
        pass
    assert not (tmp_path / "root").exists()
