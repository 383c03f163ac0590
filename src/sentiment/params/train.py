"""Parameters of one training run."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from sentiment.params.section import Section

Momentum = Annotated[float, Field(ge=0, lt=1)]
DecayFactor = Annotated[float, Field(gt=0, le=1)]
EndFactor = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(gt=0, le=100)]


class NoClipping(Section):
    """Leave every gradient alone."""

    kind: Literal["none"]


class NormClipping(Section):
    """Scale the whole gradient when its L2 norm exceeds a threshold (Pascanu et al., 2013)."""

    kind: Literal["norm"]
    threshold: PositiveFloat
    """Largest norm let through unchanged. 0.5 to 10 times the mean norm is the useful range."""


class ValueClipping(Section):
    """Limit each gradient value to between -threshold and +threshold."""

    kind: Literal["value"]
    threshold: PositiveFloat


class PercentileClipping(Section):
    """Scale the whole gradient down to a percentile of the norms seen so far (Seetharaman et al., 2020)."""

    kind: Literal["percentile"]
    percentile: Percentile
    """Of the run's own gradient norms: 10 clips about nine steps out of ten, 100 none."""


class AdaptiveClipping(Section):
    """Scale a unit's gradient when it is large against the unit's own weight (Brock et al., 2021)."""

    kind: Literal["adaptive"]
    threshold: PositiveFloat
    """Largest ratio, norm of the gradient to norm of the weight, let through unchanged. 0.01 is usual."""


Clipping = Annotated[
    NoClipping | NormClipping | ValueClipping | PercentileClipping | AdaptiveClipping,
    Field(discriminator="kind"),
]


class BaseOptimizer(Section):
    """What every optimizer shares."""

    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    l1: NonNegativeFloat
    """Weight of an L1 penalty on the weight matrices: it makes weights exactly zero; 0 goes without."""


class AdamW(BaseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"]


class Adam(BaseOptimizer):
    """Adam (Kingma and Ba, 2015); its weight decay is an L2 penalty, added to the gradient."""

    kind: Literal["adam"]


class SGD(BaseOptimizer):
    """Stochastic gradient descent with momentum; weight decay as an L2 penalty."""

    kind: Literal["sgd"]
    momentum: Momentum


Optimizer = Annotated[AdamW | Adam | SGD, Field(discriminator="kind")]


class Schedule(Section):
    """What every schedule shares: the learning rate rises linearly over the first steps."""

    warmup_steps: NonNegativeInt


class ConstantSchedule(Schedule):
    """The base learning rate throughout."""

    kind: Literal["constant"]


class StepSchedule(Schedule):
    """Times `factor` after every `every_epochs` epochs."""

    kind: Literal["step"]
    every_epochs: PositiveInt
    factor: DecayFactor


class ExponentialSchedule(Schedule):
    """Times `factor` per epoch, a little at each step."""

    kind: Literal["exponential"]
    factor: DecayFactor


class PolynomialSchedule(Schedule):
    """Down to `end_factor` of the base rate along (1 - progress) ** power."""

    kind: Literal["polynomial"]
    power: PositiveFloat
    end_factor: EndFactor


class CosineSchedule(Schedule):
    """Down to `end_factor` of the base rate along half a cosine (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"]
    end_factor: EndFactor


class NoamSchedule(Schedule):
    """Linear warm-up, then the inverse square root of the step (Vaswani et al., 2017)."""

    kind: Literal["noam"]
    warmup_steps: PositiveInt


LearningRateSchedule = Annotated[
    ConstantSchedule
    | StepSchedule
    | ExponentialSchedule
    | PolynomialSchedule
    | CosineSchedule
    | NoamSchedule,
    Field(discriminator="kind"),
]


class TrainParams(Section):
    """How the weights are found."""

    seed: NonNegativeInt
    epochs: PositiveInt
    batch_size: PositiveInt
    unlabelled: Literal["ignore", "self_training"]
    """What to do with reviews that have no label. `self_training`: a teacher learns from the labelled ones,
    and a student, the model, from all, with the teacher's probabilities as labels of the others (Lee, 2013,
    with soft labels). The student learns under dropout, the teacher labels without (Xie et al., 2020)."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    """`auto` is a CUDA device where there is one, else the CPU; the choice made is logged. Equal runs are
    equal bit for bit on one kind of device, not from one kind to another."""
    precision: Literal["fp32", "bf16", "auto"]
    """`auto` is bf16 where the device multiplies it in hardware, else fp32; the choice made is logged."""
    optimizer: Optimizer
    schedule: LearningRateSchedule
    clip: Clipping
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of a running average of the weights, which is then the model; 0 keeps the last weights.
    It is moved at every fourth step, by four steps' decay."""

    @model_validator(mode="after")
    def _rate_drops_within_the_run(self) -> Self:
        if (
            isinstance(self.schedule, StepSchedule)
            and self.epochs > 1
            and self.schedule.every_epochs >= self.epochs
        ):
            raise ValueError(
                f"schedule.every_epochs ({self.schedule.every_epochs}) must be less than epochs "
                f"({self.epochs}), or the learning rate never drops"
            )
        return self
