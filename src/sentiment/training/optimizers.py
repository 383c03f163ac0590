"""Optimizers by their parameters."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from sentiment.params.train import SGD, Adam, AdamW, Optimizer


def make_optimizer(parameters: Iterable[Tensor], params: Optimizer) -> TorchOptimizer:
    """Return the optimizer that `params` describes, in its fused form: one pass over memory per step."""
    match params:
        case AdamW():
            kind: type[torch.optim.AdamW | torch.optim.Adam] = torch.optim.AdamW
        case Adam():
            kind = torch.optim.Adam
        case SGD():
            return torch.optim.SGD(
                parameters,
                lr=params.learning_rate,
                momentum=params.momentum,
                weight_decay=params.weight_decay,
                fused=True,
            )
    return kind(parameters, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True)
