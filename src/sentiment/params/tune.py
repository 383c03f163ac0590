"""Parameters of the search."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from sentiment.params.section import Section


class NumberRange(Section):
    """A number between two bounds, both included."""

    low: float
    high: float
    log: bool = False
    points: Annotated[int, Field(ge=2)] | None = None
    """How many values a grid takes from the range, both ends among them; no other sampler reads it."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        faults = []
        if self.low > self.high:
            faults.append(f"low ({self.low}) must not exceed high ({self.high})")
        if self.log and self.low <= 0:
            faults.append(f"a logarithmic range needs low above 0, not {self.low}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{', log' if self.log else ''}"


class FloatRange(NumberRange):
    """A real number."""

    kind: Literal["float"]


class IntRange(NumberRange):
    """A whole number."""

    kind: Literal["int"]
    low: int
    high: int


class Choices(Section):
    """One of a few values."""

    kind: Literal["categorical"]
    choices: Annotated[list[bool | int | float | str], Field(min_length=2)]

    @field_validator("choices")
    @classmethod
    def _are_distinct(cls, choices: list[bool | int | float | str]) -> list[bool | int | float | str]:
        if len(set(choices)) < len(choices):
            raise ValueError("no choice twice")
        return choices

    def __str__(self) -> str:
        return ", ".join(map(str, self.choices))


Dimension = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class TPESampling(Section):
    """Draw where trials were good so far: the tree-structured Parzen estimator (Bergstra et al., 2011)."""

    kind: Literal["tpe"]
    startup_trials: NonNegativeInt
    """Trials drawn at random before it models the space."""


class RandomSampling(Section):
    """Draw every parameter by itself, evenly over its range (Bergstra and Bengio, 2012)."""

    kind: Literal["random"]


class GPSampling(Section):
    """Draw where a Gaussian process expects to gain most (Snoek et al., 2012)."""

    kind: Literal["gp"]
    startup_trials: PositiveInt
    """Trials that must have finished before it models the space; until then it draws at random."""


class GridSampling(Section):
    """Try every combination, after trial 0: all choices, and of each range its `points`."""

    kind: Literal["grid"]


Sampling = Annotated[TPESampling | RandomSampling | GPSampling | GridSampling, Field(discriminator="kind")]


class NoPruning(Section):
    """Train every trial to its end."""

    kind: Literal["none"]


class MedianPruning(Section):
    """End a trial whose best check so far is below the median of the finished trials at the same check."""

    kind: Literal["median"]
    startup_trials: NonNegativeInt
    """Trials that must have finished before any is ended."""
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Share of its checks that every trial gets before it may be ended."""


class HyperbandPruning(Section):
    """At a few checks, let the best of those who came that far go on (Li et al., 2018).

    Trials fall into brackets, some with few such checks and some with many: what learns slowly at first has
    its chance in the former.
    """

    kind: Literal["hyperband"]
    reduction_factor: Annotated[int, Field(ge=2)]
    """One trial of so many goes on. The next time comes after so many times as many checks."""
    min_resource: PositiveInt
    """Checks that every trial gets before it may be ended."""


Pruning = Annotated[NoPruning | MedianPruning | HyperbandPruning, Field(discriminator="kind")]


class WarmStart(Section):
    """Begin with the best trials of an older study, in place of random ones."""

    study: Annotated[str, Field(min_length=1)]
    """Its name in the storage."""
    trials: PositiveInt
    """How many of its finished trials, the best first; they count towards `tune.trials`."""


class Holdout(Section):
    """Choose the winner among the best trials on reviews that have steered none of them."""

    trials: PositiveInt
    """How many of the best are scored again; 1 takes the best as it is, and sets no reviews aside."""
    share: Annotated[float, Field(gt=0, lt=1)]
    """Of the validation split, set aside for this. The rest prunes, picks each trial's epoch, ranks."""


class TuneParams(Section):
    """The search around the configuration of `model` and `train`, which is trial 0."""

    trials: PositiveInt
    """Trials in all, trial 0 and pruned ones included."""
    max_failed: PositiveInt
    """The search gives up when so many trials failed: something is wrong then."""
    seed: NonNegativeInt
    sampler: Sampling
    pruner: Pruning
    evaluations_per_epoch: PositiveInt
    """Times per epoch that the validation AUC is looked at, for pruning; the last is the epoch's end."""
    warm_start: WarmStart | None
    holdout: Holdout | None
    """None, like `trials: 1` in it: no reviews are set aside, and the best trial wins."""
    space: dict[str, Dimension]
    """By dotted name, any parameter of `model` and `train`."""

    @property
    def active_holdout(self) -> Holdout | None:
        """How the winner is confirmed; None where no reviews are set aside."""
        return self.holdout if self.holdout and self.holdout.trials > 1 else None
