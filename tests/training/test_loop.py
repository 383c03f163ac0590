"""The training loop: it is deterministic, retains the best epoch and stops before a non-finite step."""

import copy
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.model.classifier import SentimentClassifier, predict_logits
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData, Truncation, iter_sorted_batches
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training import loop
from sentiment.training.clipping import ClippingResult
from sentiment.training.epoch_metrics import EpochMetrics, StepMetrics
from sentiment.training.loop import TrainingResult, fit, take_step
from sentiment.training.runtime import resolve_precision
from sentiment.training.state import TrainingState
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer

TRAIN: dict[str, Any] = {
    "seed": 1,
    "epochs": 2,
    "batch_size": 16,
    "unlabelled": "ignore",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "ranks": 1,
    "optimizer": {"kind": "adam", "learning_rate": 0.01, "weight_decay": 0.0, "l1": 0.0},
    "schedule": {"kind": "constant", "warmup_steps": 0},
    "clip": {"kind": "norm", "threshold": 1.0},
    "ema_decay": 0.0,
}
VOCABULARY = 1000

NEEDS_BF16 = pytest.mark.skipif(
    resolve_precision("auto", torch.device("cpu")) != "bf16", reason="this processor does not support bf16"
)


@pytest.fixture(scope="module")
def splits(reviews: pa.Table) -> tuple[TokenizedReviews, TokenizedReviews]:
    """Real reviews as token ids: 150 for training, 50 for validation."""
    tokenizer = train_small_tokenizer(reviews["text"].to_pylist(), VOCABULARY)
    rows = [row for row in range(200) if row % 4], [row for row in range(200) if row % 4 == 0]
    train, validation = (encode(tokenizer, reviews.take(part)) for part in rows)
    return train, validation


def _fit(splits: tuple[TokenizedReviews, TokenizedReviews], **changes: Any) -> TrainingResult:
    params = TrainParams.model_validate({**TRAIN, **changes})
    return fit(
        model_params(max_tokens=100), params, TrainingData(VOCABULARY, *splits), on_epoch=lambda _: None
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9},
        pytest.param({"precision": "bf16"}, marks=NEEDS_BF16),
        {"clip": {"kind": "adaptive", "threshold": 0.01}},
        {"clip": {"kind": "percentile", "percentile": 10}},
    ],
    ids=str,
)
def test_training_is_deterministic(
    changes: dict[str, Any], splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    first, second = _fit(splits, **changes), _fit(splits, **changes)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert first.best.validation_auc == second.best.validation_auc
    other = _fit(splits, **changes, seed=2)
    assert not torch.equal(first.model.embedding.weight, other.model.embedding.weight)


def test_weights_of_the_best_epoch_by_validation_auc_are_returned(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    result = _fit(splits, epochs=8, seed=3, optimizer={**TRAIN["optimizer"], "learning_rate": 0.1})
    aucs = [epoch.validation_auc for epoch in result.epochs]
    assert result.best.validation_auc == max(aucs)
    assert aucs[-1] != max(aucs), "the case needs a last epoch that is not the best"
    _, validation = splits
    retained = roc_auc_score(validation.labels, predict_logits(result.model, validation))
    assert retained == pytest.approx(max(aucs), abs=1e-12)


def test_training_fits_the_training_reviews(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    result = _fit(splits, epochs=16)
    assert result.epochs[-1].train_loss < 0.3 < result.epochs[0].train_loss
    assert result.epochs[-1].train_accuracy > 0.9


def test_ema_is_updated_at_every_fourth_step_of_an_epoch() -> None:
    model = SentimentClassifier(model_params(), VOCABULARY)
    state = TrainingState.create(model, TrainParams.model_validate({**TRAIN, "ema_decay": 0.9}), 10)
    step = StepMetrics(0.5, 1, 2, 3, ClippingResult(1.0, 1.0), 0.1, {}, {})
    expected = torch.empty(0)
    for number in range(1, 11):
        with torch.no_grad():
            model.embedding.weight.add_(number)
        state.record_step(step, 0.0)
        if number in (1, 5, 9):
            weight = model.embedding.weight.detach().clone()
            expected = weight if number == 1 else 0.9**4 * expected + (1 - 0.9**4) * weight
        torch.testing.assert_close(state.evaluated_model.embedding.weight, expected)


NGRAMS = {"order": 2, "min_reviews": 2, "smoothing": 0.01, "weight": 0.5}


def test_ngram_branch_does_not_change_the_training_of_the_lstm(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    """Adam updates each weight separately, so the LSTM has the same weights as without the branch."""
    params = TrainParams.model_validate({**TRAIN, "epochs": 1, "clip": {"kind": "none"}})
    alone, beside, again = (
        fit(
            model_params(max_tokens=100, ngrams=ngrams),
            params,
            TrainingData(VOCABULARY, *splits),
            lambda _: None,
        )
        for ngrams in (None, NGRAMS, NGRAMS)
    )
    weights, same = beside.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert weights["ngrams.weights"].std() > 0
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4)
    assert beside.best.train_loss < alone.best.train_loss


def test_callback_can_end_the_training(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    seen: list[int] = []

    def stop(epoch: EpochMetrics) -> None:
        seen.append(epoch.epoch)
        raise StopAsyncIteration

    params = TrainParams.model_validate(TRAIN)
    with pytest.raises(StopAsyncIteration):
        fit(model_params(), params, TrainingData(VOCABULARY, *splits), on_epoch=stop)
    assert seen == [1]


@pytest.mark.parametrize(
    ("break_model", "message"),
    [
        (
            lambda model: model.embedding.weight.data.fill_(float("inf")),
            "epoch 1, step 1 of 10: the loss is nan, with weights of embedding that are not finite",
        ),
        (
            lambda model: model.embedding.weight.register_hook(lambda gradient: gradient / 0),
            "epoch 1, step 1 of 10: the gradient of embedding is not finite",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_non_finite_loss_or_gradient_stops_before_the_step(
    break_model: Any, message: str, splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    params = TrainParams.model_validate(TRAIN)
    model = SentimentClassifier(model_params(), VOCABULARY)
    state = TrainingState.create(model, params, steps_per_epoch=10)
    batch = next(iter_sorted_batches(splits[0], Truncation(50, "head"), 8))
    break_model(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingDivergedError, match=message):
        take_step(state, batch, 0.01, "fp32")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not any(state["step"] for state in state.optimizer.state.values())


def test_non_finite_weights_after_the_last_step_stop_before_the_epoch_is_recorded(
    splits: tuple[TokenizedReviews, TokenizedReviews], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = TrainParams.model_validate({**TRAIN, "epochs": 1})
    last = math.ceil(len(splits[0]) / params.batch_size)
    taken: list[StepMetrics] = []

    def take_step_and_break(state: TrainingState, *arguments: Any) -> StepMetrics:
        taken.append(take_step(state, *arguments))
        if len(taken) == last:
            state.model.embedding.weight.data.fill_(float("nan"))
        return taken[-1]

    monkeypatch.setattr(loop, "take_step", take_step_and_break)
    seen: list[EpochMetrics] = []
    message = (
        "the validation of epoch 1: scores are not finite, with weights of embedding that are not finite"
    )
    with pytest.raises(TrainingDivergedError, match=message):
        fit(model_params(), params, TrainingData(VOCABULARY, *splits), on_epoch=seen.append)
    assert not seen


def test_schedule_longer_than_the_run_stops_before_the_first_step(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    with pytest.raises(
        UserError, match=r"train\.schedule\.warmup_steps: 21, but the run has 20 steps"
    ) as raised:
        _fit(splits, schedule={"kind": "constant", "warmup_steps": 21})
    assert raised.value.exit_status == 2


def test_precision_without_hardware_support_is_an_error(
    splits: tuple[TokenizedReviews, TokenizedReviews], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capabilities are mocked: the test also runs on processors with bf16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(
        UserError, match=r"train\.precision: this processor does not support bf16.* use fp32 or auto"
    ) as raised:
        _fit(splits, precision="bf16")
    assert raised.value.exit_status == 2
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"


def test_epoch_metrics_include_clipping(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    loose, tight = (_fit(splits, clip={"kind": "norm", "threshold": t}).epochs[0] for t in (1e3, 1e-3))
    assert (loose.clipping_rate, loose.clipping_scale_mean) == (0.0, 1.0)
    assert tight.clipping_rate == 1.0
    assert 1e-3 / tight.gradient_norm_max <= tight.clipping_scale_mean < 1


def test_token_ids_outside_the_vocabulary_are_an_error_before_training(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    params = TrainParams.model_validate(TRAIN)
    with pytest.raises(UserError, match="train split: token id 999 is not in the model's vocabulary of 900"):
        fit(model_params(), params, TrainingData(900, *splits), on_epoch=lambda _: None)


@pytest.mark.parametrize(
    "shape", [{"chunk_tokens": 8, "carry_state": True}, {"pooling": "attention"}], ids=str
)
def test_every_architecture_learns(
    shape: dict[str, Any], splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    params = TrainParams.model_validate({**TRAIN, "epochs": 6})
    result = fit(model_params(**shape), params, TrainingData(VOCABULARY, *splits), on_epoch=lambda _: None)
    assert result.epochs[0].train_accuracy < 0.8
    assert result.epochs[-1].train_accuracy > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_model_trained_on_a_gpu_has_equal_scores_on_the_cpu(
    precision: str, splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    changes = {"device": "cuda", "precision": precision, "ema_decay": 0.9}
    first, second = _fit(splits, **changes), _fit(splits, **changes)
    assert first.model.device.type == "cpu"
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    on_cpu = predict_logits(first.model, splits[1])
    np.testing.assert_allclose(predict_logits(first.model.cuda(), splits[1]), on_cpu, rtol=1e-3, atol=1e-4)


def test_batch_size_of_one(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    result = _fit(splits, epochs=1, batch_size=1)
    assert 0 <= result.best.validation_auc <= 1
