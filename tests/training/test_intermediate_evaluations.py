"""Intermediate evaluations: when they are reported, and that they do not affect the training."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sentiment.errors import TrainingDivergedError
from sentiment.model.classifier import predict_logits
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.training import epoch_metrics
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import (
    EpochMetrics,
    EvaluationSchedule,
    IntermediateEvaluation,
    sample_rows,
)
from sentiment.training.loop import TrainingResult, fit
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer
from tests.training.test_checkpoints import MODEL, STEPS, Killed, Splits
from tests.training.test_loop import NGRAMS, TRAIN, VOCABULARY


@pytest.fixture(scope="module")
def splits(reviews: pa.Table) -> Splits:
    """Real reviews as token ids: 150 for training, 50 for validation."""
    tokenizer = train_small_tokenizer(reviews["text"].to_pylist(), VOCABULARY)
    parts = [row for row in range(200) if row % 4], [row for row in range(200) if row % 4 == 0]
    train, validation = (encode(tokenizer, reviews.take(part)) for part in parts)
    return train, validation


def _fit(
    splits: Splits, evaluations: EvaluationSchedule | None, model: Any = MODEL, **changes: Any
) -> TrainingResult:
    params = TrainParams.model_validate({**TRAIN, "epochs": 2, "ema_decay": 0.9, **changes})
    reviews = TrainingData(VOCABULARY, *splits)
    return fit(model, params, reviews, on_epoch=lambda _: None, evaluations=evaluations)


@pytest.mark.parametrize("ngrams", [None, NGRAMS], ids=["alone", "ngrams"])
def test_weights_with_and_without_evaluations_are_equal(ngrams: Any, splits: Splits) -> None:
    model = model_params(ngrams=ngrams, dropout={"words": 0.1, "embeddings": 0.1, "layers": 0.0, "head": 0.3})
    seen: list[IntermediateEvaluation] = []
    without, with_evaluations = (
        _fit(splits, None, model),
        _fit(splits, EvaluationSchedule(5, seen.append), model),
    )
    for name, weight in without.model.state_dict().items():
        assert torch.equal(weight, with_evaluations.model.state_dict()[name]), name
    assert [epoch.validation_auc for epoch in without.epochs] == [
        epoch.validation_auc for epoch in with_evaluations.epochs
    ]
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("per_epoch", "steps"), [(1, [10, 20]), (2, [5, 10, 15, 20]), (3, [4, 7, 10, 14, 17, 20])]
)
def test_evaluations_are_evenly_spaced_over_the_epoch(
    per_epoch: int, steps: list[int], splits: Splits
) -> None:
    seen: list[IntermediateEvaluation] = []
    fitted = _fit(splits, EvaluationSchedule(per_epoch, seen.append))
    assert [evaluation.optimizer_steps for evaluation in seen] == steps
    assert [evaluation.evaluation_index for evaluation in seen] == list(range(1, len(steps) + 1))
    ends = [evaluation for evaluation in seen if evaluation.ends_epoch]
    assert [evaluation.optimizer_steps for evaluation in ends] == [STEPS, 2 * STEPS]
    assert [evaluation.intermediate_auc for evaluation in ends] == [
        epoch.validation_auc for epoch in fitted.epochs
    ]


def test_evaluation_scores_the_sample_with_the_weights_of_its_step(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_metrics, "SAMPLE_SIZE", 20)
    seen: list[IntermediateEvaluation] = []
    _, validation = splits
    rows = sample_rows(validation.labels, 20)
    fitted = _fit(splits, EvaluationSchedule(2, seen.append), epochs=1)
    last = roc_auc_score(validation.labels[rows], predict_logits(fitted.model, validation.take(rows)))
    assert seen[-1].intermediate_auc == pytest.approx(last, abs=1e-12)
    assert len({evaluation.intermediate_auc for evaluation in seen}) == len(seen)


def test_tokens_per_second_do_not_include_evaluations(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: IntermediateEvaluation) -> None:
        nonlocal clock
        clock += 1000

    clock = 0.0

    def tick() -> float:
        nonlocal clock
        clock += 0.001
        return clock

    monkeypatch.setattr("time.perf_counter", tick)
    slowed = _fit(splits, EvaluationSchedule(5, slow), epochs=1).best.tokens_per_second
    assert slowed > 1000, "the duration of evaluations is included"


def test_callback_can_end_the_training_within_an_epoch(splits: Splits) -> None:
    seen: list[int] = []

    def stop(evaluation: IntermediateEvaluation) -> None:
        seen.append(evaluation.optimizer_steps)
        if evaluation.evaluation_index == 3:
            raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        _fit(splits, EvaluationSchedule(2, stop))
    assert seen == [5, 10, 15]


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_evaluation_after_the_last_checkpoint_is_repeated(
    killed_after: int, splits: Splits, tmp_path: Path
) -> None:
    """The run is killed in the callback, before the checkpoint of that step is written."""
    params = TrainParams.model_validate({**TRAIN, "epochs": 2})
    reviews = TrainingData(VOCABULARY, *splits)
    uninterrupted: list[IntermediateEvaluation] = []
    fit(MODEL, params, reviews, lambda _: None, evaluations=EvaluationSchedule(2, uninterrupted.append))
    first: list[IntermediateEvaluation] = []

    def kill(evaluation: IntermediateEvaluation) -> None:
        first.append(evaluation)
        if evaluation.evaluation_index == killed_after:
            raise Killed

    def train(on_evaluation: Any) -> None:
        checkpoint = Checkpoint(tmp_path, "key", minutes=0)
        fit(
            MODEL,
            params,
            reviews,
            lambda _: None,
            checkpoint=checkpoint,
            evaluations=EvaluationSchedule(2, on_evaluation),
        )

    with pytest.raises(Killed):
        train(kill)
    resumed: list[IntermediateEvaluation] = []
    train(resumed.append)
    assert resumed[0] == first[-1]
    assert [*first[:-1], *resumed] == uninterrupted


def test_last_evaluation_of_an_epoch_is_reported_before_the_epoch(splits: Splits) -> None:
    order: list[IntermediateEvaluation | EpochMetrics] = []
    params = TrainParams.model_validate({**TRAIN, "epochs": 1})
    fit(
        MODEL,
        params,
        TrainingData(VOCABULARY, *splits),
        order.append,
        evaluations=EvaluationSchedule(1, order.append),
    )
    assert [type(reported) for reported in order] == [IntermediateEvaluation, EpochMetrics]


@pytest.mark.parametrize(
    ("batch_size", "numbers"), [(150, [4, 8]), (75, [2, 4, 6, 8]), (50, [1, 2, 4, 5, 6, 8])]
)
def test_epoch_with_few_steps_skips_evaluation_indices(
    batch_size: int, numbers: list[int], splits: Splits
) -> None:
    """Trials with other batch sizes are then compared after equal fractions of the training."""
    seen: list[IntermediateEvaluation] = []
    _fit(splits, EvaluationSchedule(4, seen.append), batch_size=batch_size)
    assert [evaluation.evaluation_index for evaluation in seen] == numbers


def test_non_finite_logits_in_an_evaluation_end_the_training(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = epoch_metrics.predict_logits
    monkeypatch.setattr(
        epoch_metrics, "predict_logits", lambda *arguments: real(*arguments) * np.float32("nan")
    )
    with pytest.raises(
        TrainingDivergedError, match="intermediate evaluation after step 5 of epoch 1: scores are not finite"
    ):
        _fit(splits, EvaluationSchedule(2, lambda _: None))


def test_sample_is_balanced_evenly_spaced_and_in_order() -> None:
    labels = np.array([0] * 600 + [1] * 300, dtype=np.int8)
    rows = sample_rows(labels, 100)
    assert len(rows) == len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert labels[rows].sum() == 50
    gaps = np.diff(rows[labels[rows] == 0])
    assert gaps.max() - gaps.min() <= 1
    assert rows[0] == 0
    assert rows[-1] == 899


def test_sample_of_few_reviews_is_all_of_them() -> None:
    labels = np.array([0, 1, 1, 0, 1], dtype=np.int8)
    assert sample_rows(labels, 5).tolist() == [0, 1, 2, 3, 4]
    few_positive = np.array([0] * 20 + [1] * 2, dtype=np.int8)
    assert few_positive[sample_rows(few_positive, 10)].sum() == 2
