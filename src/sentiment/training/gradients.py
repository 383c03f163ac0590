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
"""Number of steps per epoch whose updates are measured: enough for a median, at 0.1% of the training time."""

REMEDY = "lower train.optimizer.learning_rate or clip the gradient (train.clip)"
"""Advice in the error messages about diverged training."""


@dataclass(frozen=True)
class LayerDiagnostics:
    """Gradients and updates of one layer over an epoch."""

    gradient_norm_median: float
    """L2 norm of the layer's gradient before clipping, median over the steps."""
    gradient_norm_max: float
    update_ratio: float
    """L2 norm of a step's update divided by the L2 norm of the weights, median over the measured steps.

    A common rule of thumb is 1e-3. Far below it, a layer hardly learns; far above it, training is unstable.
    """


@dataclass(frozen=True)
class GradientDiagnostics:
    """Diagnostics of every layer over one epoch."""

    layers: dict[str, LayerDiagnostics]
    """Diagnostics keyed by layer name."""
    gate_saturation: dict[str, dict[str, float]]
    """Fraction of saturated gate values on validation reviews, keyed by LSTM layer and gate."""

    def metrics(self) -> dict[str, float]:
        """Return all metrics, keyed by name. The MLflow UI groups them by the part before the slash."""
        return {
            **{
                f"gradient_norm_median/{name}": layer.gradient_norm_median
                for name, layer in self.layers.items()
            },
            **{f"gradient_norm_max/{name}": layer.gradient_norm_max for name, layer in self.layers.items()},
            **{f"update_ratio/{name}": layer.update_ratio for name, layer in self.layers.items()},
            **{
                f"gate_saturation/{layer}_{gate}": fraction
                for layer, gates in self.gate_saturation.items()
                for gate, fraction in gates.items()
            },
        }


@dataclass(frozen=True)
class GradientNorms:
    """L2 norms of the gradient of one step."""

    total: float
    """Norm of the whole gradient."""
    layers: dict[str, float]
    """Norm of each layer's gradient, keyed by layer name."""

    @property
    def non_finite_layers(self) -> list[str]:
        """Names of the layers whose norm is infinite or NaN."""
        return [layer for layer, norm in self.layers.items() if not math.isfinite(norm)]


def compute_gradient_norms(model: nn.Module) -> GradientNorms:
    """Compute the L2 norms of the current gradients of a model, in one pass over memory."""
    with_gradient = [
        (name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None
    ]
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in with_gradient]))
    total = float(torch.linalg.vector_norm(norms))
    return GradientNorms(total, _combine_norms_by_layer([name for name, _ in with_gradient], norms.tolist()))


def describe_non_finite_layers(model: nn.Module) -> str:
    """Return a clause for an error message that names the layers with infinite or NaN weights.

    The clause is empty if all weights are finite.
    """
    non_finite = (
        get_layer_name(name) for name, weight in model.named_parameters() if not torch.isfinite(weight).all()
    )
    layers = ", ".join(dict.fromkeys(non_finite))
    return f", with weights of {layers} that are not finite" if layers else ""


def require_finite(logits: NDArray[np.float32], model: nn.Module, where: str) -> None:
    """Require that all logits of a model are finite.

    Args:
        logits: logits to check, shape (reviews,).
        model: model that computed the logits; the error names its layers with non-finite weights.
        where: position in the training at which the logits were computed, for the error message.

    Raises:
        TrainingDivergedError: a logit is infinite or NaN.
    """
    if not np.isfinite(logits).all():
        raise TrainingDivergedError(
            f"{where}: scores are not finite{describe_non_finite_layers(model)}; {REMEDY}"
        )


class UpdateRatioMeter:
    """Measures how much one optimizer step changes the weights of each layer, relative to their norm."""

    def __init__(self, model: nn.Module) -> None:
        self._names, self._weights = zip(*model.named_parameters(), strict=True)
        self._weights_before: list[Tensor] = []

    @torch.no_grad()
    def start(self) -> None:
        """Copy the weights; call this before the step."""
        self._weights_before = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def stop(self) -> dict[str, float]:
        """Return the update ratio of each layer; call this after the step.

        The update ratio is the L2 norm of the update divided by the L2 norm of the weights after the update.
        With the weights before it, a layer that starts at zero would have no ratio. The ratio is 0 if all
        weights of a layer are zero after the update.
        """
        torch._foreach_sub_(self._weights_before, self._weights)
        updates = _combine_norms_by_layer(self._names, _compute_norms(self._weights_before))
        self._weights_before = []
        weights = _combine_norms_by_layer(self._names, _compute_norms(self._weights))
        return {
            layer: update / weights[layer] if weights[layer] else 0.0 for layer, update in updates.items()
        }


def is_update_measured(step: int, steps_per_epoch: int) -> bool:
    """Return whether the update of a step is measured.

    The measured steps are UPDATES_PER_EPOCH evenly spaced steps of the epoch, or all steps if it has fewer.

    Args:
        step: index of the step in the epoch, starting at 0.
        steps_per_epoch: number of steps in an epoch.
    """
    return (step + 1) * UPDATES_PER_EPOCH // steps_per_epoch > step * UPDATES_PER_EPOCH // steps_per_epoch


def compute_layer_diagnostics(
    norms: Sequence[Mapping[str, float]], ratios: Sequence[Mapping[str, float]]
) -> dict[str, LayerDiagnostics]:
    """Summarize the gradients and updates of each layer over an epoch.

    Args:
        norms: gradient norms of one step per entry, keyed by layer.
        ratios: update ratios of one measured step per entry, keyed by layer.
    """
    return {
        layer: LayerDiagnostics(
            gradient_norm_median=float(np.median([step[layer] for step in norms])),
            gradient_norm_max=max(step[layer] for step in norms),
            update_ratio=float(np.median([step[layer] for step in ratios])),
        )
        for layer in norms[0]
    }


def _compute_norms(tensors: Sequence[Tensor]) -> list[float]:
    norms: list[float] = torch.stack(torch._foreach_norm(list(tensors))).tolist()
    return norms


def _combine_norms_by_layer(names: Sequence[str], norms: Sequence[float]) -> dict[str, float]:
    """Combine the L2 norms of parameters, given by name, into the L2 norm of each layer."""
    norms_by_layer: dict[str, list[float]] = {}
    for name, norm in zip(names, norms, strict=True):
        norms_by_layer.setdefault(get_layer_name(name), []).append(norm)
    return {layer: math.hypot(*layer_norms) for layer, layer_norms in norms_by_layer.items()}
