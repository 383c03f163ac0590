"""Parameters of the search."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sentiment.params.section import Section


class NumberRange(Section):
    """A number between two bounds, both included."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, not {self.low}")
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

    def __str__(self) -> str:
        return ", ".join(map(str, self.choices))


Dimension = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class TuneParams(Section):
    """The search around the configuration of `model` and `train`, which is trial 0."""

    trials: PositiveInt
    """Trials in all, trial 0 and pruned ones included."""
    max_failed: PositiveInt
    """The search gives up when so many trials failed: something is wrong then."""
    seed: NonNegativeInt
    startup_trials: NonNegativeInt
    """Trials drawn at random before TPE models the space, and before any trial is pruned."""
    warmup_epochs: NonNegativeInt
    """Epochs that every trial gets before it may be pruned."""
    space: dict[str, Dimension]
    """By dotted name, any parameter of `model` and `train`."""
