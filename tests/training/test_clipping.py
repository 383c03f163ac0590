"""Gradient clipping compared with NumPy."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch.nn.utils import get_total_norm

from sentiment.params.train import Clipping
from sentiment.training.clipping import ClippingResult, GradientClipper

Arrays = Mapping[str, NDArray[np.float32]]

SHAPES = {
    "embedding.weight": (50, 6),
    "lstm.weight_ih_l0": (20, 6),
    "lstm.weight_hh_l0": (20, 5),
    "lstm.bias_ih_l0": (20,),
    "scores.weight": (40, 1),
    "head.weight": (1, 5),
    "head.bias": (1,),
}
LAST_LAYER = "head"
SEEN = 7
"""Number of embedding rows with a gradient."""

KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "norm": {"threshold": 0.5},
    "value": {"threshold": 0.3},
    "percentile": {"percentile": 50.0},
    "adaptive": {"threshold": 0.1},
}


def _clipper(kind: str, **changes: Any) -> GradientClipper:
    clipping: Clipping = TypeAdapter(Clipping).validate_python({"kind": kind, **KINDS[kind], **changes})
    return GradientClipper(clipping, LAST_LAYER)


def _clip(clipper: GradientClipper, weights: Arrays, gradients: Arrays) -> tuple[Arrays, ClippingResult]:
    parameters = {name: torch.from_numpy(weight.copy()).requires_grad_() for name, weight in weights.items()}
    for name, parameter in parameters.items():
        parameter.grad = torch.from_numpy(gradients[name].copy())
    clipped = clipper(parameters.items(), float(get_total_norm(map(torch.from_numpy, gradients.values()))))
    return {name: p.grad.numpy() for name, p in parameters.items() if p.grad is not None}, clipped


@pytest.fixture(params=range(3))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


@pytest.fixture
def weights(rng: np.random.Generator) -> Arrays:
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    drawn["lstm.bias_ih_l0"][:] = 0  # as initialized
    drawn["lstm.weight_hh_l0"][3] = 0
    return drawn


@pytest.fixture
def gradients(rng: np.random.Generator) -> Arrays:
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    drawn["embedding.weight"][SEEN:] = 0
    return drawn


def _norm(arrays: Iterable[NDArray[np.float32]]) -> float:
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays)))


def _by_unit(weights: Arrays, gradients: Arrays, threshold: float) -> Arrays:
    """Apply the rule of Brock et al. unit by unit."""
    after = {name: gradient.copy() for name, gradient in gradients.items()}
    for name, gradient in after.items():
        if name.startswith(LAST_LAYER):
            continue
        is_one_unit = max(gradient.shape) == gradient.size
        for unit in [slice(None)] if is_one_unit else range(len(gradient)):
            limit = threshold * max(_norm([weights[name][unit]]), 1e-3)
            norm = _norm([gradient[unit]])
            if norm > limit:
                gradient[unit] *= limit / norm
    return after


def _assert_equal(after: Arrays, expected: Arrays, rtol: float = 0) -> None:
    for name, gradient in expected.items():
        np.testing.assert_allclose(after[name], gradient, rtol=rtol, err_msg=name)


def test_norm_over_the_threshold_is_scaled_to_it(weights: Arrays, gradients: Arrays) -> None:
    after, clipped = _clip(_clipper("norm"), weights, gradients)
    norm = _norm(gradients.values())
    assert clipped == ClippingResult(pytest.approx(norm, rel=1e-6), pytest.approx(0.5 / norm, rel=1e-6), True)
    _assert_equal(after, {name: gradient * 0.5 / norm for name, gradient in gradients.items()}, rtol=1e-5)


def test_values_are_clamped_on_both_sides(weights: Arrays, gradients: Arrays) -> None:
    after, clipped = _clip(_clipper("value"), weights, gradients)
    expected = {name: np.clip(gradient, -0.3, 0.3) for name, gradient in gradients.items()}
    _assert_equal(after, expected)
    assert clipped.clipped
    assert clipped.norm == pytest.approx(_norm(gradients.values()), rel=1e-6)
    assert clipped.scale == pytest.approx(_norm(expected.values()) / _norm(gradients.values()), rel=1e-6)


def test_percentile_includes_all_norms_so_far(weights: Arrays, gradients: Arrays) -> None:
    clipper, norms = _clipper("percentile", percentile=30), []
    for factor in (1.0, 0.5, 3.0, 0.1, 2.0, 0.3):
        scaled = {name: gradient * np.float32(factor) for name, gradient in gradients.items()}
        norms.append(_norm(scaled.values()))
        scale = min(1.0, float(np.percentile(norms, 30)) / norms[-1])
        after, clipped = _clip(clipper, weights, scaled)
        assert clipped.scale == pytest.approx(scale, rel=1e-6)
        assert clipped.clipped == (scale < 1)
        _assert_equal(after, {name: gradient * scale for name, gradient in scaled.items()}, rtol=1e-5)


def test_first_step_and_100th_percentile_are_not_clipped(weights: Arrays, gradients: Arrays) -> None:
    assert not _clip(_clipper("percentile", percentile=1), weights, gradients)[1].clipped
    clipper = _clipper("percentile", percentile=100)
    assert not any(
        _clip(clipper, weights, {name: gradient * factor for name, gradient in gradients.items()})[1].clipped
        for factor in (1, 2, 3)
    )


@pytest.mark.parametrize("threshold", [0.01, 0.5, 1.0])
def test_units_are_clipped_relative_to_their_weights(
    threshold: float, weights: Arrays, gradients: Arrays
) -> None:
    after, clipped = _clip(_clipper("adaptive", threshold=threshold), weights, gradients)
    expected = _by_unit(weights, gradients, threshold)
    _assert_equal(after, expected, rtol=1e-5)
    assert clipped.clipped
    assert clipped.norm == pytest.approx(_norm(gradients.values()), rel=1e-6)
    assert clipped.scale == pytest.approx(_norm(expected.values()) / _norm(gradients.values()), rel=1e-5)


def test_adaptive_clipping_does_not_clip_the_last_layer(weights: Arrays, gradients: Arrays) -> None:
    after, _ = _clip(_clipper("adaptive", threshold=1e-6), weights, gradients)
    for name, gradient in gradients.items():
        assert np.array_equal(after[name], gradient) == name.startswith(LAST_LAYER), name


def test_weights_of_zero_are_not_frozen(weights: Arrays, gradients: Arrays) -> None:
    after, _ = _clip(_clipper("adaptive", threshold=0.1), weights, gradients)
    assert _norm([after["lstm.bias_ih_l0"]]) == pytest.approx(0.1 * 1e-3, rel=1e-5)
    assert _norm([after["lstm.weight_hh_l0"][3]]) == pytest.approx(0.1 * 1e-3, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("none", {}),
        ("norm", {"threshold": 1e3}),
        ("value", {"threshold": 1e3}),
        ("percentile", {}),
        ("adaptive", {"threshold": 1e6}),
    ],
)
def test_gradient_below_the_threshold_is_not_clipped(
    kind: str, changes: dict[str, Any], weights: Arrays, gradients: Arrays
) -> None:
    after, clipped = _clip(_clipper(kind, **changes), weights, gradients)
    assert clipped == ClippingResult(
        pytest.approx(_norm(gradients.values()), rel=1e-6), scale=1.0, clipped=False
    )
    _assert_equal(after, gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_zeros_is_not_clipped(kind: str, weights: Arrays, gradients: Arrays) -> None:
    zeros = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    after, clipped = _clip(_clipper(kind), weights, zeros)
    assert clipped == ClippingResult(0.0)
    _assert_equal(after, zeros)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_gradient_is_reported_and_not_clipped(
    value: float, kind: str, weights: Arrays, gradients: Arrays
) -> None:
    gradients["lstm.weight_ih_l0"][2, 3] = value
    clipper = _clipper(kind)
    after, clipped = _clip(clipper, weights, gradients)
    assert not np.isfinite(clipped.norm)
    assert (clipped.scale, clipped.clipped) == (1.0, False)
    _assert_equal(after, gradients)
    assert all(norms.isfinite().all() for norms in clipper.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_restored_clipper_equals_uninterrupted(kind: str, weights: Arrays, gradients: Arrays) -> None:
    uninterrupted, first, second = _clipper(kind), _clipper(kind), _clipper(kind)
    steps = [{name: g * np.float32(f) for name, g in gradients.items()} for f in (3.0, 1 / 3, 1.7, 2.9)]
    expected = [_clip(uninterrupted, weights, step)[1] for step in steps]
    done = [_clip(first, weights, step)[1] for step in steps[:2]]
    second.load_state_dict(first.state_dict())
    assert done + [_clip(second, weights, step)[1] for step in steps[2:]] == expected
