"""Parameters of training: optimizer, learning-rate schedule, gradient clipping."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from sentiment.params.section import Section

Momentum = Annotated[float, Field(ge=0, lt=1)]
DecayFactor = Annotated[float, Field(gt=0, le=1)]
EndFactor = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(gt=0, le=100)]


class NoClipping(Section):
    """No gradient clipping."""

    kind: Literal["none"]


class NormClipping(Section):
    """Clipping by global norm: scale the gradient to a maximum L2 norm (Pascanu et al., 2013)."""

    kind: Literal["norm"]
    threshold: PositiveFloat
    """Maximum L2 norm of the whole gradient. 0.5 to 10 times the mean norm is the useful range."""


class ValueClipping(Section):
    """Clipping by value: clamp each gradient value to [-threshold, threshold]."""

    kind: Literal["value"]
    threshold: PositiveFloat
    """Maximum absolute value of a gradient value."""


class PercentileClipping(Section):
    """AutoClip: clip to a percentile of the gradient norms of all steps so far (Seetharaman et al., 2020)."""

    kind: Literal["percentile"]
    percentile: Percentile
    """Percentile of the gradient norms of this run: 10 clips about nine of ten steps, 100 clips none."""


class AdaptiveClipping(Section):
    """Adaptive gradient clipping: clip per unit, relative to the norm of its weights (Brock et al., 2021)."""

    kind: Literal["adaptive"]
    threshold: PositiveFloat
    """Maximum ratio of a unit's gradient norm to its weight norm. 0.01 is a common value."""


Clipping = Annotated[
    NoClipping | NormClipping | ValueClipping | PercentileClipping | AdaptiveClipping,
    Field(discriminator="kind"),
]


class BaseOptimizer(Section):
    """Parameters that all optimizers have."""

    learning_rate: PositiveFloat
    """Base learning rate, which the schedule scales."""
    weight_decay: NonNegativeFloat
    """Weight decay: decoupled for AdamW, an L2 penalty for Adam and SGD."""
    l1: NonNegativeFloat
    """Coefficient of the L1 penalty on the weight matrices, which sets weights to exactly zero. 0: none."""


class AdamW(BaseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"]


class Adam(BaseOptimizer):
    """Adam (Kingma and Ba, 2015) with weight decay as an L2 penalty, which is added to the gradient."""

    kind: Literal["adam"]


class SGD(BaseOptimizer):
    """Stochastic gradient descent with momentum and weight decay as an L2 penalty."""

    kind: Literal["sgd"]
    momentum: Momentum
    """Momentum factor; 0: none."""


Optimizer = Annotated[AdamW | Adam | SGD, Field(discriminator="kind")]


class Schedule(Section):
    """Parameters that all learning-rate schedules have."""

    warmup_steps: NonNegativeInt
    """Optimizer steps of the linear warm-up to the base learning rate; 0: none."""


class ConstantSchedule(Schedule):
    """Constant learning rate."""

    kind: Literal["constant"]


class StepSchedule(Schedule):
    """Step decay: the learning rate is multiplied by `factor` every `every_epochs` epochs."""

    kind: Literal["step"]
    every_epochs: PositiveInt
    """Epochs between two decays."""
    factor: DecayFactor
    """Factor of each decay."""


class ExponentialSchedule(Schedule):
    """Exponential decay: the learning rate is multiplied by `factor` per epoch, applied at every step."""

    kind: Literal["exponential"]
    factor: DecayFactor
    """Decay factor per epoch."""


class PolynomialSchedule(Schedule):
    """Polynomial decay to `end_factor` times the base learning rate, along (1 - progress) ** power."""

    kind: Literal["polynomial"]
    power: PositiveFloat
    """Exponent; 1 is linear decay."""
    end_factor: EndFactor
    """Learning rate at the end of training, as a fraction of the base learning rate."""


class CosineSchedule(Schedule):
    """Cosine annealing to `end_factor` times the base learning rate (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"]
    end_factor: EndFactor
    """Learning rate at the end of training, as a fraction of the base learning rate."""


class NoamSchedule(Schedule):
    """Linear warm-up, then decay with the inverse square root of the step (Vaswani et al., 2017)."""

    kind: Literal["noam"]
    warmup_steps: PositiveInt
    """Optimizer steps of the warm-up, at the end of which the learning rate is highest."""


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
    """Parameters of training, of the baseline model and of each trial."""

    seed: NonNegativeInt
    """Seed of weight initialization, batch order and dropout."""
    epochs: PositiveInt
    """Maximum epochs. The weights of the epoch with the highest validation AUC become the model."""
    batch_size: PositiveInt
    """Reviews per batch."""
    unlabelled: Literal["ignore", "self_training"]
    """How unlabelled reviews are used. `self_training`: a first model, trained on the labelled reviews,
    predicts soft pseudo-labels for the unlabelled ones, and the final model is trained on all reviews (Lee,
    2013, with soft labels). Dropout is on when the final model is trained and off when the pseudo-labels are
    predicted (Xie et al., 2020)."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    """Device for training. `auto`: CUDA if available, else CPU; the choice is logged. Results are
    bit-identical between runs on one type of device, but differ between types."""
    precision: Literal["fp32", "bf16", "auto"]
    """Precision of matrix products. `auto`: bf16 if the device supports it in hardware, else fp32; the choice
    is logged."""
    threads: PositiveInt
    """CPU threads of torch. They are a parameter, since another number of threads rounds sums differently."""
    ranks: PositiveInt
    """Processes that train one model together, each on its part of every batch (data parallelism). Each has
    `threads` threads or one GPU. They are a parameter, since another number rounds sums differently."""
    optimizer: Optimizer
    """Optimizer and its hyperparameters."""
    schedule: LearningRateSchedule
    """Learning-rate schedule."""
    clip: Clipping
    """Gradient clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of the exponential moving average of the weights, which becomes the model. 0: no
    averaging. The average is updated every fourth step, with the decay of four steps."""

    @model_validator(mode="after")
    def _validate_ranks(self) -> Self:
        if self.ranks > self.batch_size:
            raise ValueError(
                f"ranks ({self.ranks}) must not be greater than batch_size ({self.batch_size}): each rank "
                "trains on a part of every batch"
            )
        return self

    @model_validator(mode="after")
    def _validate_step_schedule(self) -> Self:
        if (
            isinstance(self.schedule, StepSchedule)
            and self.epochs > 1
            and self.schedule.every_epochs >= self.epochs
        ):
            raise ValueError(
                f"schedule.every_epochs ({self.schedule.every_epochs}) must be less than epochs "
                f"({self.epochs}), or the learning rate never decays"
            )
        return self
