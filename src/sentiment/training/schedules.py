"""Learning-rate schedules as factors of the base rate."""

import math

from sentiment.errors import UserError
from sentiment.params.train import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LearningRateSchedule,
    NoamSchedule,
    PolynomialSchedule,
    StepSchedule,
)


def learning_rate_factor(
    schedule: LearningRateSchedule, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """Return what to multiply the base learning rate with at a step.

    step: from 0, counted in optimizer steps. With w warm-up steps, the factor of the first w steps is
    (step + 1) / w (Goyal et al., 2017). After them, with t steps since, T steps from there to the end of the
    run, and epoch = t / steps_per_epoch:

    - constant: 1
    - step: factor ** floor(epoch / every_epochs)   (He et al., 2016)
    - exponential: factor ** epoch   (Senior et al., 2013)
    - polynomial: end + (1 - end) * (1 - t / T) ** power   (Liu et al., 2015)
    - cosine: end + (1 - end) * (1 + cos(pi * t / T)) / 2   (Loshchilov and Hutter, 2017)
    - noam: sqrt(w / (step + 1)), the shape of Vaswani et al. (2017) with its peak at the base rate
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    since = step - warmup
    epoch = since / steps_per_epoch
    progress = min(1.0, since / max(1, steps_per_epoch * epochs - warmup))
    match schedule:
        case ConstantSchedule():
            return 1.0
        case StepSchedule():
            return math.pow(schedule.factor, math.floor(epoch / schedule.every_epochs))
        case ExponentialSchedule():
            return math.pow(schedule.factor, epoch)
        case PolynomialSchedule():
            return schedule.end_share + (1 - schedule.end_share) * math.pow(1 - progress, schedule.power)
        case CosineSchedule():
            return schedule.end_share + (1 - schedule.end_share) * (1 + math.cos(math.pi * progress)) / 2
        case NoamSchedule():
            return math.sqrt(warmup / (step + 1))


def check_length(schedule: LearningRateSchedule, steps_per_epoch: int, epochs: int) -> None:
    """Raise UserError where a run ends before the schedule comes to what it is for.

    That is the base learning rate, at the end of the warm-up; of a step schedule also the first drop, but
    for a run of a single epoch.
    """
    steps = steps_per_epoch * epochs
    run = f"the run has {steps} steps ({epochs} epochs of {steps_per_epoch})"
    if schedule.warmup_steps > steps:
        raise UserError(
            f"train.schedule.warmup_steps: {schedule.warmup_steps}, but {run}; at most that many, "
            f"or the learning rate is never reached"
        )
    if isinstance(schedule, StepSchedule) and epochs > 1:
        drop = schedule.warmup_steps + schedule.every_epochs * steps_per_epoch
        if drop >= steps:
            raise UserError(
                f"train.schedule: with {schedule.warmup_steps} warm-up steps and every_epochs "
                f"{schedule.every_epochs}, the learning rate first drops after {drop} steps, but {run}; "
                f"lower warmup_steps or every_epochs"
            )
