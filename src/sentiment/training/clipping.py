"""Gradient clipping: by norm, by a percentile of past norms, by value, or by unit (adaptive)."""

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
"""Lower bound on a unit's weight norm: without it, a unit whose weights start at zero would never change
(Brock et al., 2021)."""


@dataclass(frozen=True)
class ClippingResult:
    """Effect of clipping on the gradient of one step."""

    norm: float
    """Total L2 norm of all gradients, before clipping."""
    scale: float = 1.0
    """Norm after clipping divided by the norm before; 1 if the gradient was not clipped."""
    clipped: bool = False


class GradientClipper:
    """Clips the gradients of one training run in place, step by step.

    - norm: if the total L2 norm of all gradients exceeds the threshold, every gradient is scaled by
      threshold / norm (Pascanu et al., 2013).
    - percentile: as norm, but the threshold is a percentile of the norms of all steps so far, including the
      current one, with linear interpolation (AutoClip: Seetharaman et al., 2020).
    - value: each gradient value is clamped to [-threshold, threshold].
    - adaptive: the gradient of a unit is scaled down to threshold x the norm of the unit's weights if its
      norm exceeds that (AGC: Brock et al., 2021). As in that paper's code, a unit is a row of a weight matrix
      (one entry of an embedding), a vector or bias is one unit, and the last layer is not clipped.

    Gradients that are not finite are not clipped, and their norm does not enter the percentile.
    """

    def __init__(self, clipping: Clipping, last_layer: str | None = None) -> None:
        """Start with no past norms.

        Args:
            clipping: clipping method and its threshold.
            last_layer: name of the output layer, which adaptive clipping does not clip.
        """
        self.clipping = clipping
        self.last_layer = last_layer
        self._norms: list[float] = []

    def __call__(self, parameters: Iterable[tuple[str, Tensor]], norm: float) -> ClippingResult:
        """Clip the gradients of named parameters, in place. Parameters without a gradient are skipped.

        Args:
            parameters: names and values of the parameters, as `named_parameters()` returns them.
            norm: total L2 norm of all gradients, which the training loop has already computed.
        """
        with_gradient = [
            (name, parameter.detach(), parameter.grad)
            for name, parameter in parameters
            if parameter.grad is not None
        ]
        gradients = [gradient for _, _, gradient in with_gradient]
        if not math.isfinite(norm):
            return ClippingResult(norm)
        match self.clipping:
            case NoClipping():
                return ClippingResult(norm)
            case NormClipping():
                return _clip_by_norm(self.clipping.threshold, gradients, norm)
            case PercentileClipping():
                self._norms.append(norm)
                return _clip_by_norm(
                    float(np.percentile(self._norms, self.clipping.percentile)), gradients, norm
                )
            case ValueClipping():
                return _clip_by_value(self.clipping.threshold, gradients, norm)
            case AdaptiveClipping():
                to_clip, not_clipped = [], []
                for name, weight, gradient in with_gradient:
                    if name.rpartition(".")[0] == self.last_layer:
                        not_clipped.append(gradient)
                    else:
                        to_clip.append((weight, gradient))
                return _clip_by_unit(self.clipping.threshold, to_clip, not_clipped, norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the past norms, for a checkpoint; empty unless clipping by percentile."""
        if not isinstance(self.clipping, PercentileClipping):
            return {}
        return {"norms": torch.tensor(self._norms, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the past norms.

        Raises:
            KeyError: the state belongs to another clipping method.
        """
        if isinstance(self.clipping, PercentileClipping):
            self._norms = state["norms"].tolist()


def _clip_by_norm(threshold: float, gradients: Sequence[Tensor], norm: float) -> ClippingResult:
    if norm <= threshold:
        return ClippingResult(norm)
    scale = threshold / norm
    torch._foreach_mul_(list(gradients), scale)
    return ClippingResult(norm, scale, clipped=True)


def _clip_by_value(threshold: float, gradients: Sequence[Tensor], norm: float) -> ClippingResult:
    # `aminmax` and `clamp_` read memory once; `abs().max()` and the foreach clamps do not.
    extremes = torch.stack([extreme for gradient in gradients for extreme in torch.aminmax(gradient)])
    if float(extremes.abs().max()) <= threshold:
        return ClippingResult(norm)
    for gradient in gradients:
        gradient.clamp_(-threshold, threshold)
    return ClippingResult(norm, float(get_total_norm(gradients)) / norm, clipped=True)


def _clip_by_unit(
    threshold: float, to_clip: Sequence[tuple[Tensor, Tensor]], not_clipped: Sequence[Tensor], norm: float
) -> ClippingResult:
    """Clip the gradient of each unit relative to the norm of the unit's weights.

    Args:
        threshold: largest gradient norm of a unit, as a multiple of the norm of its weights.
        to_clip: weight and gradient of each parameter that may be clipped.
        not_clipped: gradients of the last layer; they count only towards the total norm after clipping.
        norm: total L2 norm of all gradients, before clipping.
    """
    results = [_clip_parameter_by_unit(weight, gradient, threshold) for weight, gradient in to_clip]
    if not any(was_clipped for _, was_clipped in results):
        return ClippingResult(norm)
    norms = [*(clipped_norm for clipped_norm, _ in results), *map(vector_norm, not_clipped)]
    return ClippingResult(norm, float(vector_norm(torch.stack(norms))) / norm, clipped=True)


def _clip_parameter_by_unit(weight: Tensor, gradient: Tensor, threshold: float) -> tuple[Tensor, bool]:
    """Clip the gradient of one parameter by unit; return its norm after clipping and whether it was clipped.

    The weights of units without a gradient, which are most entries of an embedding, are not read.
    """
    weights, gradients = _view_by_unit(weight), _view_by_unit(gradient)
    norms = vector_norm(gradients, dim=1)
    rows = norms.nonzero().squeeze(1)
    limits = threshold * vector_norm(weights.index_select(0, rows), dim=1).clamp(min=SMALLEST_WEIGHT_NORM)
    exceeds_limit = norms[rows] > limits
    rows, limits = rows[exceeds_limit], limits[exceeds_limit]
    scales = limits / norms[rows]
    gradients.index_copy_(0, rows, gradients.index_select(0, rows) * scales[:, None])
    norms[rows] = limits
    return vector_norm(norms), len(rows) > 0


def _view_by_unit(values: Tensor) -> Tensor:
    """Return a view of a parameter or its gradient with one row per unit, shape (units, values per unit)."""
    return values.view(1, -1) if values.squeeze().ndim <= 1 else values.view(len(values), -1)
