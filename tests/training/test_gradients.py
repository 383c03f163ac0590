"""Gradient diagnostics by layer compared with NumPy, on real steps with real reviews."""

import copy
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import get_total_norm

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.diagnostics import GATES, measure_gate_saturation
from sentiment.params.data import TokenizeParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import Batch, TrainingData, Truncation, iter_sorted_batches
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import train_tokenizer
from sentiment.training.epoch_metrics import (
    StepMetrics,
    build_gradients_table,
    build_history_table,
    build_training_metrics,
)
from sentiment.training.gradients import (
    UPDATES_PER_EPOCH,
    GradientDiagnostics,
    LayerDiagnostics,
    UpdateRatioMeter,
    compute_gradient_norms,
    compute_layer_diagnostics,
    is_update_measured,
)
from sentiment.training.loop import TrainingResult, fit, take_step
from sentiment.training.state import TrainingState
from tests.model.small_model import model_params
from tests.training.test_loop import TRAIN

VOCABULARY = 300
LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
LAYERS = {
    "embedding": ["embedding.weight"],
    "lstm_1_forward": [f"layers.0.directions.0.{name}" for name in LSTM],
    "lstm_1_backward": [f"layers.0.directions.1.{name}" for name in LSTM],
    "head": ["head.1.weight", "head.1.bias"],
}


@pytest.fixture(scope="module")
def tokens(reviews: pa.Table) -> TokenizedReviews:
    params = TokenizeParams(
        kind="word", vocabulary_size=VOCABULARY, min_frequency=1, lowercase=True, oov_rate=1.0
    )
    return encode(train_tokenizer(reviews["text"].to_pylist(), params), reviews)


@pytest.fixture
def batch(tokens: TokenizedReviews) -> Batch:
    return next(iter_sorted_batches(tokens, Truncation(50, "head"), 8))


def _joined(model: nn.Module, layer: str, *, gradient: bool = False) -> NDArray[np.float64]:
    named = dict(model.named_parameters())
    values = [named[name].grad if gradient else named[name].detach() for name in LAYERS[layer]]
    return np.concatenate([value.numpy().astype(np.float64).ravel() for value in values if value is not None])


def _step(
    model: SentimentClassifier, batch: Batch, meter: UpdateRatioMeter | None, **changes: Any
) -> StepMetrics:
    state = TrainingState.create(model, TrainParams.model_validate({**TRAIN, **changes}), steps_per_epoch=1)
    return take_step(state, batch, 0.01, "fp32", meter)


def test_gradient_norms_equal_numpy_and_combine_to_the_total(batch: Batch) -> None:
    model = SentimentClassifier(model_params(), VOCABULARY)
    model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)).sum().backward()
    norms = compute_gradient_norms(model)
    assert norms.layers.keys() == LAYERS.keys()
    for layer in LAYERS:
        assert norms.layers[layer] == pytest.approx(
            np.linalg.norm(_joined(model, layer, gradient=True)), rel=1e-5
        )
    assert norms.total == float(get_total_norm([weight.grad for weight in model.parameters()]))
    assert norms.total == pytest.approx(math.hypot(*norms.layers.values()), rel=1e-6)


def test_gradient_norms_are_measured_before_clipping(batch: Batch) -> None:
    torch.manual_seed(0)
    model = SentimentClassifier(model_params(), VOCABULARY)
    clipped = copy.deepcopy(model)
    free = _step(model, batch, None, clip={"kind": "none"})
    bounded = _step(clipped, batch, None, clip={"kind": "norm", "threshold": free.clipping.norm / 10})
    assert bounded.clipping.clipped
    assert bounded.gradient_norms == free.gradient_norms
    assert math.hypot(*compute_gradient_norms(clipped).layers.values()) == pytest.approx(
        free.clipping.norm / 10, rel=1e-5
    )


def test_non_finite_layers_are_named() -> None:
    model = SentimentClassifier(model_params(), VOCABULARY)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    model.head[1].bias.grad.fill_(torch.nan)
    model.layers[0].directions[1].weight_hh_l0.grad[0, 0] = torch.inf
    norms = compute_gradient_norms(model)
    assert norms.non_finite_layers == ["lstm_1_backward", "head"]
    assert not math.isfinite(norms.total)


@pytest.mark.parametrize(
    "optimizer",
    [
        {**TRAIN["optimizer"]},
        {**TRAIN["optimizer"], "kind": "adamw", "weight_decay": 0.1},
        {**TRAIN["optimizer"], "kind": "sgd", "momentum": 0.9},
    ],
    ids=lambda optimizer: str(optimizer["kind"]),
)
def test_update_ratio_is_update_norm_over_weight_norm(optimizer: dict[str, Any], batch: Batch) -> None:
    model = SentimentClassifier(model_params(), VOCABULARY)
    before = copy.deepcopy(model)
    step = _step(model, batch, UpdateRatioMeter(model), optimizer=optimizer)
    assert step.update_ratios.keys() == LAYERS.keys()
    for layer, ratio in step.update_ratios.items():
        after = _joined(model, layer)
        change = np.linalg.norm(after - _joined(before, layer))
        assert ratio == pytest.approx(change / np.linalg.norm(after), rel=1e-4), layer
        assert ratio > 0


def test_layers_that_start_or_stay_at_zero_have_a_ratio() -> None:
    model = nn.ModuleDict({"moved": nn.Linear(2, 1), "still": nn.Linear(2, 1)})
    for weight in model.parameters():
        weight.data.zero_()
    meter = UpdateRatioMeter(model)
    meter.start()
    model["moved"].weight.data.fill_(3.0)
    assert meter.stop() == {"moved": 1.0, "still": 0.0}


def test_measuring_does_not_change_the_step(batch: Batch) -> None:
    torch.manual_seed(0)
    model = SentimentClassifier(model_params(), VOCABULARY)
    other = copy.deepcopy(model)
    measured, plain = _step(model, batch, UpdateRatioMeter(model)), _step(other, batch, None)
    assert plain.update_ratios == {}
    assert measured.loss == plain.loss
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("steps", [1, 7, 20, 21, 272])
def test_updates_are_measured_at_evenly_spaced_steps(steps: int) -> None:
    measured = [step for step in range(steps) if is_update_measured(step, steps)]
    assert len(measured) == min(steps, UPDATES_PER_EPOCH)
    assert measured[-1] == steps - 1
    gaps = np.diff(measured)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_layer_diagnostics_summarize_steps() -> None:
    norms = [{"head": norm, "embedding": 2 * norm} for norm in (1.0, 9.0, 2.0)]
    ratios = [{"head": 0.1, "embedding": 0.2}, {"head": 0.3, "embedding": 0.4}]
    assert compute_layer_diagnostics(norms, ratios) == {
        "head": LayerDiagnostics(
            gradient_norm_median=2.0, gradient_norm_max=9.0, update_ratio=pytest.approx(0.2)
        ),
        "embedding": LayerDiagnostics(
            gradient_norm_median=4.0, gradient_norm_max=18.0, update_ratio=pytest.approx(0.3)
        ),
    }


def test_metric_names_have_sections() -> None:
    diagnostics = GradientDiagnostics(
        {"head": LayerDiagnostics(1.0, 2.0, 0.1)}, {"lstm_1_forward": {"forget": 0.25}}
    )
    assert diagnostics.metrics() == {
        "gradient_norm_median/head": 1.0,
        "gradient_norm_max/head": 2.0,
        "update_ratio/head": 0.1,
        "gate_saturation/lstm_1_forward_forget": 0.25,
    }


@pytest.fixture(scope="module")
def result(tokens: TokenizedReviews) -> TrainingResult:
    params = TrainParams.model_validate(TRAIN)
    shape = model_params(layers=2, chunk_tokens=8)
    return fit(shape, params, TrainingData(VOCABULARY, tokens, tokens), on_epoch=lambda _: None)


@pytest.mark.slow
def test_every_epoch_has_diagnostics_of_every_layer(result: TrainingResult) -> None:
    lstms = {f"lstm_{layer}_{direction}" for layer in (1, 2) for direction in ("forward", "backward")}
    for epoch in result.epochs:
        assert set(epoch.gradients.layers) == {"embedding", "head"} | lstms
        for layer in epoch.gradients.layers.values():
            assert 0 < layer.gradient_norm_median <= layer.gradient_norm_max <= epoch.gradient_norm_max
            assert 0 < layer.update_ratio < 1
        assert set(epoch.gradients.gate_saturation) == lstms
        shares = [share for gates in epoch.gradients.gate_saturation.values() for share in gates.values()]
        assert all(0 <= share <= 1 for share in shares)
    assert result.epochs[0].gradients != result.epochs[1].gradients


@pytest.mark.slow
def test_layer_metrics_are_in_the_gradients_table_only(result: TrainingResult) -> None:
    table = build_gradients_table(result.epochs)
    assert list(table) == ["epoch", "layer", "gradient_norm_median", "gradient_norm_max", "update_ratio"]
    assert list(zip(table["epoch"], table["layer"], strict=True)) == [
        (epoch.epoch, layer) for epoch in result.epochs for layer in epoch.gradients.layers
    ]
    assert "gradients" not in build_history_table(result.epochs)
    assert "gradients" not in build_training_metrics(result.epochs, result.best)["best"]


def test_closed_output_gates_saturate_and_their_gradient_vanishes(
    tokens: TokenizedReviews, batch: Batch
) -> None:
    """The diagnostics reveal a vanishing gradient."""
    torch.manual_seed(0)
    sound = SentimentClassifier(model_params(bidirectional=False), VOCABULARY)
    shut = copy.deepcopy(sound)
    with torch.no_grad():
        shut.layers[0].directions[0].bias_ih_l0.view(4, -1)[GATES.index("output")] = -8.0
    norms = [_step(copy.deepcopy(model), batch, None).gradient_norms for model in (sound, shut)]
    assert norms[1]["embedding"] < norms[0]["embedding"] / 100
    shares = [measure_gate_saturation(model, tokens)["lstm_1_forward"]["output"] for model in (sound, shut)]
    assert shares == [pytest.approx(0, abs=0.01), 1.0]
