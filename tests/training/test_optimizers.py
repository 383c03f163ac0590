"""Optimizers compared with values calculated by hand and with their formulas in NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from sentiment.params.train import Optimizer
from sentiment.training.optimization import build_optimizer

Array = NDArray[np.float64]

ADAMW, ADAM = {"kind": "adamw"}, {"kind": "adam"}
SGD = {"kind": "sgd", "momentum": 0.9}


def _steps(
    kind: dict[str, Any],
    start: Array,
    gradients: Sequence[Array],
    rates: Sequence[float],
    weight_decay: float = 0.0,
    l1: float = 0.0,
) -> Array:
    """Return a parameter after one step per gradient, each with its own learning rate."""
    params: Optimizer = TypeAdapter(Optimizer).validate_python(
        {**kind, "learning_rate": 1.0, "weight_decay": weight_decay, "l1": l1}
    )
    parameter = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = build_optimizer([parameter], params)
    for gradient, rate in zip(gradients, rates, strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize(
    ("kind", "weight_decay", "l1", "first", "second"),
    [
        (SGD, 0.0, 0.0, 0.95, 0.855),  # 0.1 * 0.5, then 0.1 * (0.9 * 0.5 + 0.5)
        (SGD, 0.1, 0.0, 0.94, 0.8266),  # 0.1 * 0.6, then 0.1 * (0.9 * 0.6 + 0.594)
        (SGD, 0.0, 0.2, 0.93, 0.815),  # each step shrinks the weight by 0.02
        (ADAM, 0.0, 0.0, 0.9, 0.8),  # equal gradients: each step moves the weight by the learning rate
        (ADAM, 0.0, 0.2, 0.88, 0.76),
        (ADAMW, 0.0, 0.0, 0.9, 0.8),
        (ADAMW, 0.1, 0.0, 0.89, 0.7811),  # each step also shrinks the weight by 1%
        (ADAMW, 0.1, 0.2, 0.87, 0.7413),
    ],
)
def test_two_steps_equal_hand_calculated_values(
    kind: dict[str, Any], weight_decay: float, l1: float, first: float, second: float
) -> None:
    start, gradient = np.array([[1.0]]), np.array([[0.5]])
    for count, expected in ((1, first), (2, second)):
        reached = _steps(kind, start, [gradient] * count, [0.1] * count, weight_decay, l1)
        assert reached.item() == pytest.approx(expected, rel=1e-6)


def _reference(
    kind: str,
    start: Array,
    gradients: Sequence[Array],
    rates: Sequence[float],
    weight_decay: float,
    l1: float,
) -> Array:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; Polyak's momentum."""
    weight, velocity, mean, square = start, 0.0 * start, 0.0 * start, 0.0 * start
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        penalised = gradient + (0 if kind == "adamw" else weight_decay) * weight
        velocity = 0.9 * velocity + penalised
        mean, square = 0.9 * mean + 0.1 * penalised, 0.999 * square + 0.001 * penalised**2
        adapted = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        shrunk = weight * (1 - rate * weight_decay) if kind == "adamw" else weight
        weight = shrunk - rate * (velocity if kind == "sgd" else adapted)
        if weight.ndim > 1:
            weight = np.sign(weight) * np.maximum(np.abs(weight) - rate * l1, 0)
    return weight


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW], ids=lambda kind: kind["kind"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("l1", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(40, 6), (6,)], ids=["weight", "bias"])
def test_steps_follow_the_formulas(
    kind: dict[str, Any], weight_decay: float, l1: float, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    start, gradients, rates = rng.normal(size=shape), rng.normal(size=(3, *shape)), [0.1, 0.03, 0.2]
    reached = _steps(kind, start, list(gradients), rates, weight_decay, l1)
    expected = _reference(kind["kind"], start, list(gradients), rates, weight_decay, l1)
    np.testing.assert_allclose(reached, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW], ids=lambda kind: kind["kind"])
def test_l1_sets_weights_to_exactly_zero_and_excludes_biases(kind: dict[str, Any]) -> None:
    """A weight within learning rate x l1 of zero becomes zero."""
    start = np.array([[0.04, -0.04, 0.0, 0.06, -0.06]])
    zeros = np.zeros_like(start)
    reached = _steps(kind, start, [zeros], [0.1], l1=0.5)
    np.testing.assert_array_equal(reached[0, :3], 0.0)
    np.testing.assert_allclose(reached[0, 3:], [0.01, -0.01], rtol=1e-9)
    np.testing.assert_array_equal(_steps(kind, start, [zeros] * 2, [0.1] * 2, l1=0.5), 0.0)
    np.testing.assert_array_equal(_steps(kind, start[0], [zeros[0]], [0.1], l1=0.5), start[0])


@pytest.mark.parametrize(("kind", "peer"), [(ADAM, torch.optim.Adam), (ADAMW, torch.optim.AdamW)])
def test_adam_state_is_allocated_as_torch_does_in_its_first_step(
    kind: dict[str, Any], peer: type[torch.optim.Adam]
) -> None:
    params: Optimizer = TypeAdapter(Optimizer).validate_python(
        {**kind, "learning_rate": 1.0, "weight_decay": 0.0, "l1": 0.0}
    )
    weights = torch.ones(2, 3, requires_grad=True)
    weights.grad = torch.zeros_like(weights)
    optimizer, stepped = build_optimizer([weights], params), peer([weights], lr=0.0, fused=True)
    stepped.step()
    allocated, expected = optimizer.state[weights], stepped.state[weights]
    assert list(allocated) == list(expected)
    for name in allocated:
        assert (allocated[name].dtype, allocated[name].shape) == (expected[name].dtype, expected[name].shape)
        assert not allocated[name].any()
