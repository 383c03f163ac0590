"""One training run: equal runs are equal, the best epoch is kept, trouble stops before the step."""

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
from sentiment.training.clipping import ClippingResult, GradientClipper
from sentiment.training.epoch_metrics import EpochMetrics, StepMetrics
from sentiment.training.loop import TrainingResult, fit, take_step
from sentiment.training.optimization import build_optimizer
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
    "optimizer": {"kind": "adam", "learning_rate": 0.01, "weight_decay": 0.0, "l1": 0.0},
    "schedule": {"kind": "constant", "warmup_steps": 0},
    "clip": {"kind": "norm", "threshold": 1.0},
    "ema_decay": 0.0,
}
VOCABULARY = 1000

NEEDS_BF16 = pytest.mark.skipif(
    resolve_precision("auto", torch.device("cpu")) != "bf16", reason="this processor does not multiply bf16"
)


@pytest.fixture(scope="module")
def splits(reviews: pa.Table) -> tuple[TokenizedReviews, TokenizedReviews]:
    """Real reviews as token ids: 150 to learn from, 50 to choose with."""
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
def test_equal_runs_are_equal_bit_for_bit(
    changes: dict[str, Any], splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    first, second = _fit(splits, **changes), _fit(splits, **changes)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert first.best.validation_auc == second.best.validation_auc
    other = _fit(splits, **changes, seed=2)
    assert not torch.equal(first.model.embedding.weight, other.model.embedding.weight)


def test_best_epoch_by_validation_auc_is_kept(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    fitted = _fit(splits, epochs=8, seed=3, optimizer={**TRAIN["optimizer"], "learning_rate": 0.1})
    aucs = [epoch.validation_auc for epoch in fitted.epochs]
    assert fitted.best.validation_auc == max(aucs)
    assert aucs[-1] != max(aucs), "the case needs a last epoch that is not the best"
    _, validation = splits
    kept = roc_auc_score(validation.labels, predict_logits(fitted.model, validation))
    assert kept == pytest.approx(max(aucs), abs=1e-12)


def test_learns_what_it_is_shown(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    fitted = _fit(splits, epochs=16)
    assert fitted.epochs[-1].train_loss < 0.3 < fitted.epochs[0].train_loss
    assert fitted.epochs[-1].train_accuracy > 0.9


def test_average_follows_the_weights_of_every_fourth_step_of_an_epoch() -> None:
    model = SentimentClassifier(model_params(), VOCABULARY)
    state = TrainingState.start(model, TrainParams.model_validate({**TRAIN, "ema_decay": 0.9}))
    step = StepMetrics(0.5, 1, 2, 3, ClippingResult(1.0, 1.0), 0.1, {}, {})
    expected = torch.empty(0)
    for number in range(1, 11):
        with torch.no_grad():
            model.embedding.weight.add_(number)
        state.record_step(step, 0.0)
        if number in (1, 5, 9):
            weight = model.embedding.weight.detach().clone()
            expected = weight if number == 1 else 0.9**4 * expected + (1 - 0.9**4) * weight
        torch.testing.assert_close(state.candidate.embedding.weight, expected)


NGRAMS = {"order": 2, "min_reviews": 2, "smoothing": 0.01, "weight": 0.5}


def test_ngrams_learn_beside_the_lstm_and_take_nothing_from_it(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    """With an optimizer that treats each weight by itself, the LSTM ends where it would have alone."""
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


def test_callback_may_stop_the_run(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    seen: list[int] = []

    def stop(epoch: EpochMetrics) -> None:
        seen.append(epoch.epoch)
        raise StopAsyncIteration

    params = TrainParams.model_validate(TRAIN)
    with pytest.raises(StopAsyncIteration):
        fit(model_params(), params, TrainingData(VOCABULARY, *splits), on_epoch=stop)
    assert seen == [1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda model: model.embedding.weight.data.fill_(float("inf")),
            "step 7: the loss is nan, with weights of embedding that are not finite",
        ),
        (
            lambda model: model.embedding.weight.register_hook(lambda gradient: gradient / 0),
            "step 7: the gradient of embedding is not finite",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_what_is_not_finite_stops_before_the_step(
    spoil: Any, message: str, splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    params = TrainParams.model_validate(TRAIN)
    model = SentimentClassifier(model_params(), VOCABULARY)
    optimizer = build_optimizer(model.parameters(), params.optimizer)
    batch = next(iter_sorted_batches(splits[0], Truncation(50, "head"), 8))
    spoil(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingDivergedError, match=message):
        take_step(model, optimizer, batch, 0.01, GradientClipper(params.clip), "fp32", "step 7")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not any(state["step"] for state in optimizer.state.values())


def test_weights_spoiled_by_the_last_step_stop_before_the_epoch_counts(
    splits: tuple[TokenizedReviews, TokenizedReviews], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = TrainParams.model_validate({**TRAIN, "epochs": 1})
    last = math.ceil(len(splits[0]) / params.batch_size)
    taken: list[StepMetrics] = []

    def spoiling(model: SentimentClassifier, *arguments: Any, **keywords: Any) -> StepMetrics:
        taken.append(take_step(model, *arguments, **keywords))
        if len(taken) == last:
            model.embedding.weight.data.fill_(float("nan"))
        return taken[-1]

    monkeypatch.setattr(loop, "take_step", spoiling)
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


def test_precision_that_the_processor_lacks_is_refused(
    splits: tuple[TokenizedReviews, TokenizedReviews], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No processor without bf16 can be had here."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(UserError, match=r"train\.precision: bf16 asked for, .* use fp32 or auto") as raised:
        _fit(splits, precision="bf16")
    assert raised.value.exit_status == 2
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"


def test_epoch_tells_how_much_was_clipped(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    loose, tight = (_fit(splits, clip={"kind": "norm", "threshold": t}).epochs[0] for t in (1e3, 1e-3))
    assert (loose.clipping_rate, loose.clipping_scale_mean) == (0.0, 1.0)
    assert tight.clipping_rate == 1.0
    assert 1e-3 / tight.gradient_norm_max <= tight.clipping_scale_mean < 1


def test_tokens_of_another_vocabulary_are_refused_before_training(
    splits: tuple[TokenizedReviews, TokenizedReviews],
) -> None:
    params = TrainParams.model_validate(TRAIN)
    with pytest.raises(UserError, match="train split: token id 999 is not in the model's vocabulary of 900"):
        fit(model_params(), params, TrainingData(900, *splits), on_epoch=lambda _: None)


@pytest.mark.parametrize(
    "shape", [{"chunk_tokens": 8, "carry_state": True}, {"pooling": "attention"}], ids=str
)
def test_every_shape_learns(shape: dict[str, Any], splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    params = TrainParams.model_validate({**TRAIN, "epochs": 6})
    fitted = fit(model_params(**shape), params, TrainingData(VOCABULARY, *splits), on_epoch=lambda _: None)
    assert fitted.epochs[0].train_accuracy < 0.8
    assert fitted.epochs[-1].train_accuracy > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_model_trained_on_a_gpu_scores_alike_on_the_cpu(
    precision: str, splits: tuple[TokenizedReviews, TokenizedReviews]
) -> None:
    changes = {"device": "cuda", "precision": precision, "ema_decay": 0.9}
    first, second = _fit(splits, **changes), _fit(splits, **changes)
    assert first.model.device.type == "cpu"
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    on_cpu = predict_logits(first.model, splits[1])
    np.testing.assert_allclose(predict_logits(first.model.cuda(), splits[1]), on_cpu, rtol=1e-3, atol=1e-4)


def test_a_batch_of_one(splits: tuple[TokenizedReviews, TokenizedReviews]) -> None:
    fitted = _fit(splits, epochs=1, batch_size=1)
    assert 0 <= fitted.best.validation_auc <= 1
