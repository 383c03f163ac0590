"""What a trial carries: its suggested parameters, and the values noted as user attributes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.params.search_space import (
    Value,
    Values,
    get_value,
    is_applicable,
    kind_first_sort_key,
    replace_values,
)
from sentiment.params.tune import Choices, Dimension, FloatRange, IntRange

ERROR = "error"
"""Why a failed trial failed."""

WALL_SECONDS, CPU_SECONDS = "wall_seconds", "cpu_seconds"
"""What a trial took, over all processes that worked on it. Of the machine: for MLflow, for no DVC output."""

OPTIMIZER_STEPS, PLANNED_OPTIMIZER_STEPS = "optimizer_steps", "planned_optimizer_steps"


@dataclass(frozen=True)
class Progress:
    """Optimizer steps that a trial took, and those of its whole training."""

    optimizer_steps: int
    planned_optimizer_steps: int


def note_progress(trial: optuna.Trial, progress: Progress) -> None:
    """Write into the study how far a trial is."""
    trial.set_user_attr(OPTIMIZER_STEPS, progress.optimizer_steps)
    trial.set_user_attr(PLANNED_OPTIMIZER_STEPS, progress.planned_optimizer_steps)


def progress_of(trial: FrozenTrial) -> Progress | None:
    """Return how far a trial got, None where it never said."""
    recorded = trial.user_attrs
    if not {OPTIMIZER_STEPS, PLANNED_OPTIMIZER_STEPS} <= recorded.keys():
        return None
    return Progress(recorded[OPTIMIZER_STEPS], recorded[PLANNED_OPTIMIZER_STEPS])


def error_of(trial: FrozenTrial) -> str | None:
    """Return why a trial failed, in one line; None where it did not, or never said."""
    error = trial.user_attrs.get(ERROR)
    return None if error is None else " ".join(str(error).split())


def value_of(trial: FrozenTrial) -> float:
    """Return the AUC of a finished trial. Raises ValueError of one that is not."""
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no AUC")
    return trial.value


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the finished trials, best first; of equal ones the earlier."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(finished, key=lambda trial: (-value_of(trial), trial.number))


def starting_point(params: Params) -> dict[str, Value]:
    """Return the configuration of params.yaml as values of the search space: trial 0."""
    return {name: get_value(params, name) for name in params.tune.space if is_applicable(params, name, {})}


def suggest(trial: optuna.Trial, params: Params) -> Params:
    """Return `params` with what the trial draws from the space in place.

    Parameters that a drawn variant does not have (a threshold where clipping is off) are not drawn.
    Raises UserError where the values drawn do not go together.
    """
    values: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kind_first_sort_key):
        if is_applicable(params, name, values):
            dimension = _widened(params.tune.space[name], get_value(params, name))
            values[name] = _draw(trial, name, dimension)
    return configured(params, values)


def fitting(params: Params, values: Values) -> dict[str, Value]:
    """Return those of a trial's values that the space of `params` has too, and allows."""
    kept: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kind_first_sort_key):
        if name in values and is_applicable(params, name, kept):
            dimension = _widened(params.tune.space[name], get_value(params, name))
            if _allows(dimension, values[name]):
                kept[name] = values[name]
    return kept


def _allows(dimension: Dimension, value: Value) -> bool:
    match dimension:
        case Choices():
            return value in dimension.choices
        case IntRange():
            return type(value) is int and dimension.low <= value <= dimension.high
        case FloatRange():
            return type(value) is float and dimension.low <= value <= dimension.high


def _draw(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    match dimension:
        case Choices():
            drawn: Value | None = trial.suggest_categorical(name, dimension.choices)
        case IntRange():
            drawn = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
        case FloatRange():
            drawn = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if drawn is None:  # Optuna's choices may be None, those of params.yaml may not
        raise TypeError(f"{name}: drew no value")
    return drawn


def _widened(dimension: Dimension, start: Any) -> Dimension:
    """Return a dimension that holds `start`, the value of trial 0; None where trial 0 has none."""
    match dimension:
        case _ if start is None:
            return dimension
        case Choices():
            missing = [] if start in dimension.choices else [start]
            return dimension.model_copy(update={"choices": [*dimension.choices, *missing]})
        case _:
            ends = {"low": min(dimension.low, start), "high": max(dimension.high, start)}
            return dimension.model_copy(update=ends)


def configured(params: Params, values: Values) -> Params:
    """Return `params` with the values of a trial in place.

    Raises UserError where they do not go together.
    """
    try:
        return replace_values(params, values)
    except ValidationError as error:
        drawn = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"params.yaml: tune.space allows {drawn}, but {where}: {fault['msg']}") from None
