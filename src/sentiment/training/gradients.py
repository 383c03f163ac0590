"""Whether gradients vanish or explode on their way through the layers, and how far each step moves them."""

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
"""Steps of an epoch whose updates are measured: enough for a median, at a thousandth of the time."""

REMEDY = "lower train.optimizer.learning_rate or clip the gradient (train.clip)"


@dataclass(frozen=True)
class LayerDiagnostics:
    """One layer's figures over an epoch."""

    gradient_norm: float
    """L2 norm before clipping, median over the steps."""
    gradient_norm_max: float
    update_ratio: float
    """L2 norm of what a step changed over that of the weights, median over the steps measured.

    Around 1e-3 is the usual rule of thumb; far below it a layer hardly learns, far above it it jumps.
    """


@dataclass(frozen=True)
class GradientDiagnostics:
    """What an epoch tells about its gradients."""

    layers: dict[str, LayerDiagnostics]
    gate_saturation: dict[str, dict[str, float]]
    """By LSTM layer and gate, share of values on the flat ends, over validation reviews."""

    def metrics(self) -> dict[str, float]:
        """Return every figure by name; what stands before the slash is its section in the MLflow UI."""
        return {
            **{f"gradient_norm/{name}": layer.gradient_norm for name, layer in self.layers.items()},
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
    """L2 norms of one step's gradient."""

    total: float
    """Over all layers together."""
    layers: dict[str, float]

    @property
    def not_finite(self) -> list[str]:
        """Layers whose norm is infinite or not a number."""
        return [layer for layer, norm in self.layers.items() if not math.isfinite(norm)]


def gradient_norms(model: nn.Module) -> GradientNorms:
    """Measure the gradient that the model's parameters hold, in one pass over it."""
    held = [(name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None]
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in held]))
    total = float(torch.linalg.vector_norm(norms))
    return GradientNorms(total, _by_layer([name for name, _ in held], norms.tolist()))


def describe_non_finite_layers(model: nn.Module) -> str:
    """Name the layers with a weight that is infinite or not a number, as the end of an error's clause."""
    spoiled = (
        get_layer_name(name) for name, weight in model.named_parameters() if not torch.isfinite(weight).all()
    )
    layers = ", ".join(dict.fromkeys(spoiled))
    return f", with weights of {layers} that are not finite" if layers else ""


def require_finite(logits: NDArray[np.float32], model: nn.Module, where: str) -> None:
    """Raise TrainingDivergedError where a model's score is not finite; where: the place, for the error."""
    if not np.isfinite(logits).all():
        raise TrainingDivergedError(
            f"{where}: scores are not finite{describe_non_finite_layers(model)}; {REMEDY}"
        )


class UpdateRatios:
    """Measures what one optimizer step changes in each layer, between `remember` and `measure`."""

    def __init__(self, model: nn.Module) -> None:
        self._names, self._weights = zip(*model.named_parameters(), strict=True)
        self._before: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Copy the weights as they are before the step."""
        self._before = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return by layer the L2 norm of the change over that of the weights after it; 0 of none are left.

        After it, so that a layer which starts from zero has a ratio too.
        """
        torch._foreach_sub_(self._before, self._weights)
        changes = _by_layer(self._names, _norms(self._before))
        self._before = []
        weights = _by_layer(self._names, _norms(self._weights))
        return {
            layer: change / weights[layer] if weights[layer] else 0.0 for layer, change in changes.items()
        }


def is_update_measured(step: int, steps_per_epoch: int) -> bool:
    """Tell whether a step's update is measured.

    UPDATES_PER_EPOCH of an epoch's are, evenly spaced; all where it has fewer. step: from 0, in the epoch.
    """
    return (step + 1) * UPDATES_PER_EPOCH // steps_per_epoch > step * UPDATES_PER_EPOCH // steps_per_epoch


def compute_layer_diagnostics(
    norms: Sequence[Mapping[str, float]], ratios: Sequence[Mapping[str, float]]
) -> dict[str, LayerDiagnostics]:
    """Sum up an epoch: gradient norms by layer of each step, update ratios by layer of each one measured."""
    return {
        layer: LayerDiagnostics(
            gradient_norm=float(np.median([step[layer] for step in norms])),
            gradient_norm_max=max(step[layer] for step in norms),
            update_ratio=float(np.median([step[layer] for step in ratios])),
        )
        for layer in norms[0]
    }


def _norms(tensors: Sequence[Tensor]) -> list[float]:
    norms: list[float] = torch.stack(torch._foreach_norm(list(tensors))).tolist()
    return norms


def _by_layer(names: Sequence[str], norms: Sequence[float]) -> dict[str, float]:
    """Join the norms of parameters to those of the layers that they belong to."""
    parts: dict[str, list[float]] = {}
    for name, norm in zip(names, norms, strict=True):
        parts.setdefault(get_layer_name(name), []).append(norm)
    return {layer: math.hypot(*norms_of_layer) for layer, norms_of_layer in parts.items()}
