"""Gradient clipping, and what it did."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.utils import get_total_norm

from sentiment.params.train import (
    AdaptiveClipping,
    Clipping,
    NoClipping,
    NormClipping,
    PercentileClipping,
    ValueClipping,
)

SMALLEST_WEIGHT_NORM = 1e-3
"""Least norm that a unit's weight counts as: one that starts at zero could not move (Brock et al., 2021)."""


@dataclass(frozen=True)
class ClippingResult:
    """What one call saw and did."""

    norm: float
    """The gradient's total L2 norm before clipping."""
    scale: float = 1.0
    """Norm after clipping over norm before: 1 where the gradient was left alone."""
    changed: bool = False


class GradientClipper:
    """Clips the gradients of one training run in place, step after step.

    - norm: where the L2 norm over all gradients together exceeds the threshold, every gradient is scaled by
      threshold / norm; else all are left alone (Pascanu et al., 2013).
    - percentile: the same, the threshold being a percentile of all norms seen so far, the present one
      included, with linear interpolation (AutoClip: Seetharaman et al., 2020).
    - value: each gradient value is limited to [-threshold, threshold].
    - adaptive: a unit's gradient is scaled down to threshold x the norm of the unit's weight where its norm
      exceeds that (AGC: Brock et al., 2021). As in that paper's code, a unit is a row of a weight matrix (of
      an embedding: an entry), a vector or bias counts whole, and the last layer is left alone.

    Gradients that are not finite are left as they are, and forgotten.
    """

    def __init__(self, clipping: Clipping, last_layer: str | None = None) -> None:
        """last_layer: name of the module that adaptive clipping leaves alone."""
        self.clipping = clipping
        self.last_layer = last_layer
        self._norms: list[float] = []

    def __call__(self, parameters: Iterable[tuple[str, Tensor]], norm: float) -> ClippingResult:
        """Clip the gradients of named parameters; those without a gradient are passed over.

        norm: over all gradients together, which the training loop has measured already.
        """
        found = [
            (name, parameter.detach(), parameter.grad)
            for name, parameter in parameters
            if parameter.grad is not None
        ]
        gradients = [gradient for _, _, gradient in found]
        if not math.isfinite(norm):
            return ClippingResult(norm)
        match self.clipping:
            case NoClipping():
                return ClippingResult(norm)
            case NormClipping():
                return _scale_to(self.clipping.threshold, gradients, norm)
            case PercentileClipping():
                self._norms.append(norm)
                return _scale_to(float(np.percentile(self._norms, self.clipping.percentile)), gradients, norm)
            case ValueClipping():
                return _limit_values(self.clipping.threshold, gradients, norm)
            case AdaptiveClipping():
                bounded, free = [], []
                for name, weight, gradient in found:
                    if name.rpartition(".")[0] == self.last_layer:
                        free.append(gradient)
                    else:
                        bounded.append((weight, gradient))
                return _limit_units(self.clipping.threshold, bounded, free, norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a clipper needs to go on where this one stands."""
        if not isinstance(self.clipping, PercentileClipping):
            return {}
        return {"norms": torch.tensor(self._norms, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another clipper stood. Raises KeyError where its state is of another kind."""
        if isinstance(self.clipping, PercentileClipping):
            self._norms = state["norms"].tolist()


def _scale_to(threshold: float, gradients: Sequence[Tensor], norm: float) -> ClippingResult:
    if norm <= threshold:
        return ClippingResult(norm)
    scale = threshold / norm
    torch._foreach_mul_(list(gradients), scale)
    return ClippingResult(norm, scale, changed=True)


def _limit_values(threshold: float, gradients: Sequence[Tensor], norm: float) -> ClippingResult:
    # One pass over memory each, which `abs().max()` and the foreach clamps are not.
    ends = torch.stack([end for gradient in gradients for end in torch.aminmax(gradient)])
    if float(ends.abs().max()) <= threshold:
        return ClippingResult(norm)
    for gradient in gradients:
        gradient.clamp_(-threshold, threshold)
    return ClippingResult(norm, float(get_total_norm(gradients)) / norm, changed=True)


def _limit_units(
    threshold: float, bounded: Sequence[tuple[Tensor, Tensor]], free: Sequence[Tensor], norm: float
) -> ClippingResult:
    """Clip by unit the gradients of `bounded`, each with its weight; those of `free` count in the norm."""
    units = [_limit_units_of(weight, gradient, threshold) for weight, gradient in bounded]
    if not any(changed for _, changed in units):
        return ClippingResult(norm)
    norms = [*(after for after, _ in units), *(vector_norm(gradient) for gradient in free)]
    return ClippingResult(norm, float(vector_norm(torch.stack(norms))) / norm, changed=True)


def _limit_units_of(weight: Tensor, gradient: Tensor, threshold: float) -> tuple[Tensor, bool]:
    """Clip one parameter's gradient by unit; return its norm after that, and whether it was changed.

    The weights of units without a gradient, in an embedding most of them, are not read.
    """
    weights, gradients = _units(weight), _units(gradient)
    norms = vector_norm(gradients, dim=1)
    rows = norms.nonzero().squeeze(1)
    limits = threshold * vector_norm(weights.index_select(0, rows), dim=1).clamp(min=SMALLEST_WEIGHT_NORM)
    over = norms[rows] > limits
    rows, limits = rows[over], limits[over]
    scales = limits / norms[rows]
    gradients.index_copy_(0, rows, gradients.index_select(0, rows) * scales[:, None])
    norms[rows] = limits
    return vector_norm(norms), len(rows) > 0


def _units(values: Tensor) -> Tensor:
    """View a parameter or its gradient by unit, shape (units, values of each)."""
    return values.view(1, -1) if values.squeeze().ndim <= 1 else values.view(len(values), -1)
