"""Optimizers by their parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from sentiment.params.train import SGD, Adam, AdamW, Optimizer


def make_optimizer(parameters: Iterable[Tensor], params: Optimizer) -> TorchOptimizer:
    """Return the optimizer that `params` describes, in its fused form: one pass over memory per step.

    Where `l1` is above 0, each step is followed by the proximal step of that penalty: every weight moves
    towards zero by the step's learning rate times `l1`, and one that would cross zero stops there (soft
    thresholding: Beck and Teboulle, 2009; Duchi and Singer, 2009). So weights become exactly zero. It holds
    for weight matrices, not for biases; weight decay holds for all parameters.
    """
    optimizer = _without_l1(parameters, params)
    if params.l1 > 0:
        l1 = params.l1

        def shrink(optimizer: TorchOptimizer, args: Any, kwargs: Any) -> None:
            for group in optimizer.param_groups:
                _shrink([p for p in group["params"] if p.ndim > 1], group["lr"] * l1)

        optimizer.register_step_post_hook(shrink)
    return optimizer


def _without_l1(parameters: Iterable[Tensor], params: Optimizer) -> TorchOptimizer:
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
    optimizer = kind(parameters, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True)
    _allocate_moments(optimizer)
    return optimizer


def _allocate_moments(optimizer: torch.optim.Adam) -> None:
    """Make now what Adam would make in its first step.

    There it would come to lie amid that step's activations, and the memory between it be in pieces for good.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            optimizer.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }


@torch.no_grad()
def _shrink(weights: Iterable[Tensor], by: float) -> None:
    for weight in weights:  # in place, for which torch.nn.functional has no form: a quarter of the time
        torch.ops.aten.softshrink.out(weight, by, out=weight)
