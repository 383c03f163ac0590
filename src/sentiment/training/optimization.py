"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from sentiment.errors import UserError
from sentiment.params.train import (
    SGD,
    Adam,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LearningRateSchedule,
    NoamSchedule,
    Optimizer,
    PolynomialSchedule,
    StepSchedule,
)


def build_optimizer(parameters: Iterable[Tensor], params: Optimizer) -> TorchOptimizer:
    """Build an optimizer, in torch's fused implementation: one pass over memory per step.

    If `l1` is above 0, each step is followed by the proximal step of the L1 penalty: every weight moves
    towards zero by the step's learning rate times `l1`, and a weight that would cross zero becomes exactly
    zero (soft thresholding: Beck and Teboulle, 2009; Duchi and Singer, 2009). The penalty applies to weight
    matrices, not to biases; weight decay applies to all parameters.

    Args:
        parameters: weights to optimize.
        params: `train.optimizer` of params.yaml.
    """
    optimizer = _build_torch_optimizer(parameters, params)
    if params.l1 > 0:
        l1 = params.l1

        def apply_l1(optimizer: TorchOptimizer, args: Any, kwargs: Any) -> None:
            for group in optimizer.param_groups:
                _soft_threshold([weight for weight in group["params"] if weight.ndim > 1], group["lr"] * l1)

        optimizer.register_step_post_hook(apply_l1)
    return optimizer


def _build_torch_optimizer(parameters: Iterable[Tensor], params: Optimizer) -> TorchOptimizer:
    match params:
        case AdamW():
            optimizer_class: type[torch.optim.AdamW | torch.optim.Adam] = torch.optim.AdamW
        case Adam():
            optimizer_class = torch.optim.Adam
        case SGD():
            return torch.optim.SGD(
                parameters,
                lr=params.learning_rate,
                momentum=params.momentum,
                weight_decay=params.weight_decay,
                fused=True,
            )
    optimizer = optimizer_class(
        parameters, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    _allocate_moments(optimizer)
    return optimizer


def _allocate_moments(optimizer: torch.optim.Adam) -> None:
    """Allocate the state that Adam would otherwise allocate in its first step.

    There it would be placed between the activations, and fragment memory permanently.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            optimizer.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }


@torch.no_grad()
def _soft_threshold(weights: Iterable[Tensor], threshold: float) -> None:
    for weight in weights:  # in place: takes a quarter of the time of torch.nn.functional.softshrink
        torch.ops.aten.softshrink.out(weight, threshold, out=weight)


def compute_learning_rate_factor(
    schedule: LearningRateSchedule, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """Compute the factor by which the base learning rate is multiplied at a step.

    With w warm-up steps, the factor of the first w steps is (step + 1) / w (Goyal et al., 2017). After them,
    with t = step - w, T the number of steps from the end of the warm-up to the end of the run, and
    epoch = t / steps_per_epoch:

    - constant: 1
    - step: factor ** floor(epoch / every_epochs)   (He et al., 2016)
    - exponential: factor ** epoch   (Senior et al., 2013)
    - polynomial: end + (1 - end) * (1 - t / T) ** power   (Liu et al., 2015)
    - cosine: end + (1 - end) * (1 + cos(pi * t / T)) / 2   (Loshchilov and Hutter, 2017)
    - noam: sqrt(w / (step + 1)), the shape of Vaswani et al. (2017) with its peak at the base learning rate

    Args:
        schedule: `train.schedule` of params.yaml.
        step: index of the optimizer step, starting at 0 and counted over all epochs.
        steps_per_epoch: number of optimizer steps in an epoch.
        epochs: number of epochs in the run.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    steps_after_warmup = step - warmup
    epoch = steps_after_warmup / steps_per_epoch
    progress = min(1.0, steps_after_warmup / max(1, steps_per_epoch * epochs - warmup))
    match schedule:
        case ConstantSchedule():
            return 1.0
        case StepSchedule():
            return math.pow(schedule.factor, math.floor(epoch / schedule.every_epochs))
        case ExponentialSchedule():
            return math.pow(schedule.factor, epoch)
        case PolynomialSchedule():
            return schedule.end_factor + (1 - schedule.end_factor) * math.pow(1 - progress, schedule.power)
        case CosineSchedule():
            return schedule.end_factor + (1 - schedule.end_factor) * (1 + math.cos(math.pi * progress)) / 2
        case NoamSchedule():
            return math.sqrt(warmup / (step + 1))


def validate_schedule(schedule: LearningRateSchedule, steps_per_epoch: int, epochs: int) -> None:
    """Check that a run is long enough for its learning-rate schedule.

    The warm-up must not be longer than the run. A step schedule must also reach its first drop, unless the
    run has a single epoch.

    Raises:
        UserError: the run is too short.
    """
    steps = steps_per_epoch * epochs
    run = f"the run has {steps} steps ({epochs} epochs of {steps_per_epoch})"
    if schedule.warmup_steps > steps:
        raise UserError(
            f"train.schedule.warmup_steps: {schedule.warmup_steps}, but {run}; "
            f"with more warm-up steps than that, the base learning rate is never reached"
        )
    if isinstance(schedule, StepSchedule) and epochs > 1:
        drop = schedule.warmup_steps + schedule.every_epochs * steps_per_epoch
        if drop >= steps:
            raise UserError(
                f"train.schedule: with {schedule.warmup_steps} warm-up steps and every_epochs "
                f"{schedule.every_epochs}, the learning rate first drops after {drop} steps, but {run}; "
                f"lower warmup_steps or every_epochs"
            )
