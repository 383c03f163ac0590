"""Parameters of hyperparameter tuning."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from sentiment.params.section import Section


class NumberRange(Section):
    """Range of a numeric hyperparameter; both bounds are included."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    log: bool = False
    """Whether values are sampled on a logarithmic scale."""
    points: Annotated[int, Field(ge=2)] | None = None
    """Number of grid points, including both bounds. Only the grid sampler reads it."""

    @model_validator(mode="after")
    def _validate_bounds(self) -> Self:
        problems = []
        if self.low > self.high:
            problems.append(f"low ({self.low}) must not exceed high ({self.high})")
        if self.log and self.low <= 0:
            problems.append(f"a logarithmic range needs low above 0, not {self.low}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{', log' if self.log else ''}"


class FloatRange(NumberRange):
    """Range of a floating-point hyperparameter."""

    kind: Literal["float"]


class IntRange(NumberRange):
    """Range of an integer hyperparameter."""

    kind: Literal["int"]
    low: int
    """Lower bound."""
    high: int
    """Upper bound."""


class Choices(Section):
    """Categorical hyperparameter."""

    kind: Literal["categorical"]
    choices: Annotated[list[bool | int | float | str], Field(min_length=2)]
    """Values to choose from, all different."""

    @field_validator("choices")
    @classmethod
    def _validate_distinct(cls, choices: list[bool | int | float | str]) -> list[bool | int | float | str]:
        if len(set(choices)) < len(choices):
            raise ValueError("choices must be distinct")
        return choices

    def __str__(self) -> str:
        return ", ".join(map(str, self.choices))


Dimension = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class TPESampling(Section):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    kind: Literal["tpe"]
    startup_trials: NonNegativeInt
    """Trials that are sampled at random before the estimator is used."""


class RandomSampling(Section):
    """Random search: independent uniform sampling (Bergstra and Bengio, 2012)."""

    kind: Literal["random"]


class GPSampling(Section):
    """Bayesian optimization with a Gaussian process (Snoek et al., 2012)."""

    kind: Literal["gp"]
    startup_trials: PositiveInt
    """Trials that must be complete before the Gaussian process is used; sampling is random until then."""


class GridSampling(Section):
    """Grid search: after trial 0, every combination of all choices and of the `points` of each range."""

    kind: Literal["grid"]


Sampling = Annotated[TPESampling | RandomSampling | GPSampling | GridSampling, Field(discriminator="kind")]


class NoPruning(Section):
    """No pruning: every trial is trained for all epochs."""

    kind: Literal["none"]


class MedianPruning(Section):
    """Median stopping rule: prune a trial whose best intermediate AUC is below the median of earlier trials.

    The median is that of all trials with a lower number that reached the same evaluation, also of those that
    were pruned later.
    """

    kind: Literal["median"]
    startup_trials: NonNegativeInt
    """Trials that must have reached an evaluation before a trial is pruned at it."""
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of its intermediate evaluations during which a trial is not pruned."""


class HyperbandPruning(Section):
    """Hyperband: successive halving in several brackets (Li et al., 2018).

    Brackets differ in the number of intermediate evaluations before the first pruning, so that
    hyperparameters with slow initial progress are not always pruned.
    """

    kind: Literal["hyperband"]
    reduction_factor: Annotated[int, Field(ge=2)]
    """One of this many trials is promoted at each rung, and the rungs are spaced by the same factor."""
    min_resource: PositiveInt
    """Intermediate evaluations before a trial can be pruned."""


Pruning = Annotated[NoPruning | MedianPruning | HyperbandPruning, Field(discriminator="kind")]


class WarmStart(Section):
    """Start with the best trials of an earlier study instead of random trials."""

    study: Annotated[str, Field(min_length=1)]
    """Name of the earlier study in the same storage."""
    trials: PositiveInt
    """Number of its best completed trials to repeat; they count towards `tune.trials`."""


class TuneParams(Section):
    """Hyperparameter search around the configuration in `model` and `train`, which is trial 0."""

    trials: PositiveInt
    """Number of trials, including trial 0 and pruned trials."""
    max_parallel: PositiveInt
    """Maximum number of trials that run at the same time. Trial n is drawn from the results of trials 0 to
    n - `max_parallel`, so that the results do not depend on the number of workers."""
    threads: PositiveInt
    """CPU threads of each trial, in place of `train.threads`."""
    max_failed: PositiveInt
    """Number of failed trials after which the search stops with an error."""
    seed: NonNegativeInt
    """Seed of the sampler."""
    sampler: Sampling
    """How the hyperparameters of a trial are chosen."""
    pruner: Pruning
    """When an unpromising trial is stopped."""
    evaluations_per_epoch: PositiveInt
    """Intermediate evaluations per epoch, which measure the validation AUC for the pruner. The last one is at
    the end of the epoch."""
    warm_start: WarmStart | None
    """Trials of an earlier study to start with. Null: none."""
    space: dict[str, Dimension]
    """Search space: a range or choices for each hyperparameter, by its dotted path in `model` or `train`."""
