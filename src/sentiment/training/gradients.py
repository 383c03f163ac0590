"""Gradient diagnostics by layer: vanishing and exploding gradients, and the size of each update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentiment.errors import TrainingDivergedError
from sentiment.model.classifier import get_layer_name

UPDATES_PER_EPOCH = 20
"""Number of steps per epoch whose updates are measured: enough for a median, in 0.1% of the training time."""

REMEDY = "lower train.optimizer.learning_rate or clip the gradient (train.clip)"


@dataclass(frozen=True)
class LayerDiagnostics:
    """Gradients and updates of one layer over an epoch."""

    gradient_norm_median: float
    """L2 norm before clipping, median over the steps."""
    gradient_norm_max: float
    update_ratio: float
    """L2 norm of a step's update divided by that of the weights, median over the measured steps.

    A common rule of thumb is 1e-3. Far below it, a layer hardly learns; far above it, training is unstable.
    """


@dataclass(frozen=True)
class GradientDiagnostics:
    """Diagnostics of one epoch by layer."""

    layers: dict[str, LayerDiagnostics]
    gate_saturation: dict[str, dict[str, float]]
    """Share of saturated gate values by LSTM layer and gate, over validation reviews."""

    def metrics(self) -> dict[str, float]:
        """Return all metrics by name. The part before the slash is the metric's section in the MLflow UI."""
        return {
            **{
                f"gradient_norm_median/{name}": layer.gradient_norm_median
                for name, layer in self.layers.items()
            },
            **{f"gradient_norm_max/{name}": layer.gradient_norm_max for name, layer in self.layers.items()},
            **{f"update_ratio/{name}": layer.update_ratio for name, layer in self.layers.items()},
            **{
                f"gate_saturation/{layer}_{gate}": share
                for layer, gates in self.gate_saturation.items()
                for gate, share in gates.items()
            },
        }


@dataclass(frozen=True)
class GradientNorms:
    """L2 norms of the gradient of one step."""

    total: float
    """Over all layers together."""
    layers: dict[str, float]

    @property
    def non_finite_layers(self) -> list[str]:
        """Layers with an infinite or NaN norm."""
        return [layer for layer, norm in self.layers.items() if not math.isfinite(norm)]


def compute_gradient_norms(model: nn.Module) -> GradientNorms:
    """Compute the norms of the gradients that the model's parameters hold, in one pass over memory."""
    with_gradient = [
        (name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None
    ]
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in with_gradient]))
    total = float(torch.linalg.vector_norm(norms))
    return GradientNorms(total, _by_layer([name for name, _ in with_gradient], norms.tolist()))


def describe_non_finite_layers(model: nn.Module) -> str:
    """Return the end of an error message: the layers with an infinite or NaN weight, or an empty string."""
    non_finite = (
        get_layer_name(name) for name, weight in model.named_parameters() if not torch.isfinite(weight).all()
    )
    layers = ", ".join(dict.fromkeys(non_finite))
    return f", with weights of {layers} that are not finite" if layers else ""


def require_finite(logits: NDArray[np.float32], model: nn.Module, where: str) -> None:
    """Require that all logits of a model are finite.

    Args:
        logits: shape (reviews,).
        model: computed the logits; its layers with non-finite weights are named in the error.
        where: point of the training at which the logits were computed, for the error message.

    Raises:
        TrainingDivergedError: if a logit is infinite or NaN.
    """
    if not np.isfinite(logits).all():
        raise TrainingDivergedError(
            f"{where}: scores are not finite{describe_non_finite_layers(model)}; {REMEDY}"
        )


class UpdateRatioMeter:
    """Measures the size of one optimizer step's update relative to the weights, by layer."""

    def __init__(self, model: nn.Module) -> None:
        self._names, self._weights = zip(*model.named_parameters(), strict=True)
        self._before: list[Tensor] = []

    @torch.no_grad()
    def start(self) -> None:
        """Copy the weights before the step."""
        self._before = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def stop(self) -> dict[str, float]:
        """Return by layer the L2 norm of the update divided by that of the weights after it.

        The weights after the update are used so that a layer that starts at zero has a ratio too. The ratio
        is 0 if all weights of a layer are zero after the update.
        """
        torch._foreach_sub_(self._before, self._weights)
        updates = _by_layer(self._names, _norms(self._before))
        self._before = []
        weights = _by_layer(self._names, _norms(self._weights))
        return {
            layer: update / weights[layer] if weights[layer] else 0.0 for layer, update in updates.items()
        }


def is_update_measured(step: int, steps_per_epoch: int) -> bool:
    """Whether the update of a step is measured: UPDATES_PER_EPOCH evenly spaced ones, or all if fewer.

    Args:
        step: index of the step in the epoch, from 0.
        steps_per_epoch: number of steps of an epoch.
    """
    return (step + 1) * UPDATES_PER_EPOCH // steps_per_epoch > step * UPDATES_PER_EPOCH // steps_per_epoch


def compute_layer_diagnostics(
    norms: Sequence[Mapping[str, float]], ratios: Sequence[Mapping[str, float]]
) -> dict[str, LayerDiagnostics]:
    """Summarize an epoch by layer.

    Args:
        norms: gradient norms by layer, of each step.
        ratios: update ratios by layer, of each measured step.
    """
    return {
        layer: LayerDiagnostics(
            gradient_norm_median=float(np.median([step[layer] for step in norms])),
            gradient_norm_max=max(step[layer] for step in norms),
            update_ratio=float(np.median([step[layer] for step in ratios])),
        )
        for layer in norms[0]
    }


def _norms(tensors: Sequence[Tensor]) -> list[float]:
    norms: list[float] = torch.stack(torch._foreach_norm(list(tensors))).tolist()
    return norms


def _by_layer(names: Sequence[str], norms: Sequence[float]) -> dict[str, float]:
    """Combine the norms of parameters into the norms of their layers."""
    norms_by_layer: dict[str, list[float]] = {}
    for name, norm in zip(names, norms, strict=True):
        norms_by_layer.setdefault(get_layer_name(name), []).append(norm)
    return {layer: math.hypot(*norms_of_layer) for layer, norms_of_layer in norms_by_layer.items()}
