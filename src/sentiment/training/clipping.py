"""Gradient clipping, and what it did."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from sentiment.params.train import Clipping, NoClipping, NormClipping, ValueClipping


@dataclass(frozen=True)
class Clipped:
    """What one call saw and did: the gradient's total L2 norm before clipping, and whether it was changed."""

    norm: float
    changed: bool


def clip_gradients(parameters: Sequence[Tensor], clipping: Clipping) -> Clipped:
    """Clip the gradients of `parameters` in place.

    By norm: where the L2 norm over all gradients together exceeds the threshold, every gradient is scaled
    by threshold / norm; else all are left alone (Pascanu et al., 2013). By value: each gradient value is
    limited to [-threshold, threshold]. Gradients that are not finite are left as they are.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = get_total_norm(gradients)
    norm = float(total)
    if not torch.isfinite(total):
        return Clipped(norm, changed=False)
    match clipping:
        case NoClipping():
            return Clipped(norm, changed=False)
        case NormClipping():
            if norm > clipping.threshold:
                torch._foreach_mul_(gradients, clipping.threshold / norm)
            return Clipped(norm, changed=norm > clipping.threshold)
        case ValueClipping():
            largest = max(float(gradient.abs().max()) for gradient in gradients)
            if largest > clipping.threshold:
                torch._foreach_clamp_min_(gradients, -clipping.threshold)
                torch._foreach_clamp_max_(gradients, clipping.threshold)
            return Clipped(norm, changed=largest > clipping.threshold)
