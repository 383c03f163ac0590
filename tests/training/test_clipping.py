"""Clipping against plain NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sentiment.params.train import Clipping, NoClipping, NormClipping, ValueClipping
from sentiment.training.clipping import Clipped, clip_gradients


def _clip(
    gradients: list[NDArray[np.float32]], clipping: Clipping
) -> tuple[list[NDArray[np.float32]], Clipped]:
    parameters = [torch.zeros(gradient.shape, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    clipped = clip_gradients(parameters, clipping)
    return [parameter.grad.numpy() for parameter in parameters if parameter.grad is not None], clipped


@pytest.fixture
def gradients() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,), (2, 2, 2))]


def _norm(gradients: list[NDArray[np.float32]]) -> float:
    return float(np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients)))


def test_norm_over_the_threshold_is_scaled_to_it(gradients: list[NDArray[np.float32]]) -> None:
    after, clipped = _clip(gradients, NormClipping(kind="norm", threshold=0.5))
    assert clipped.norm == pytest.approx(_norm(gradients), rel=1e-6)
    assert clipped.changed
    for one, other in zip(after, gradients, strict=True):
        np.testing.assert_allclose(one, other * 0.5 / _norm(gradients), rtol=1e-6)


def test_norm_under_the_threshold_is_left_alone(gradients: list[NDArray[np.float32]]) -> None:
    after, clipped = _clip(gradients, NormClipping(kind="norm", threshold=_norm(gradients) * 1.01))
    assert not clipped.changed
    for one, other in zip(after, gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_values_are_limited_on_both_sides(gradients: list[NDArray[np.float32]]) -> None:
    after, clipped = _clip(gradients, ValueClipping(kind="value", threshold=0.3))
    assert clipped.changed
    assert clipped.norm == pytest.approx(_norm(gradients), rel=1e-6)  # before clipping
    for one, other in zip(after, gradients, strict=True):
        np.testing.assert_array_equal(one, np.clip(other, -0.3, 0.3).astype(np.float32))


def test_small_values_are_left_alone(gradients: list[NDArray[np.float32]]) -> None:
    assert not _clip(gradients, ValueClipping(kind="value", threshold=100.0))[1].changed


def test_no_clipping_measures_and_changes_nothing(gradients: list[NDArray[np.float32]]) -> None:
    after, clipped = _clip(gradients, NoClipping(kind="none"))
    assert clipped == Clipped(pytest.approx(_norm(gradients), rel=1e-6), changed=False)
    np.testing.assert_array_equal(after[0], gradients[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradient_that_is_not_finite_is_reported(value: float, gradients: list[NDArray[np.float32]]) -> None:
    gradients[1][2] = value
    assert not np.isfinite(_clip(gradients, NormClipping(kind="norm", threshold=1.0))[1].norm)
