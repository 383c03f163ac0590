"""Hyperparameters that a trial draws, and user attributes that it records."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from sentiment.errors import UserError
from sentiment.intervals import DECIMALS
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
"""User attribute: error message of a failed trial."""

WALL_SECONDS, CPU_SECONDS = "wall_seconds", "cpu_seconds"
"""User attributes: duration of a trial in seconds, summed over all processes that ran it.

The durations differ between machines, so they are logged to MLflow but not written to any DVC output.
"""

OPTIMIZER_STEPS, PLANNED_OPTIMIZER_STEPS = "optimizer_steps", "planned_optimizer_steps"
"""User attributes: the fields of `Progress`."""


@dataclass(frozen=True)
class Progress:
    """Progress of a trial.

    Attributes:
        optimizer_steps: number of optimizer steps that the trial has taken.
        planned_optimizer_steps: number of optimizer steps of the complete training.
    """

    optimizer_steps: int
    planned_optimizer_steps: int

    def to_user_attrs(self) -> dict[str, int]:
        """Return the user attributes of a trial that record the progress."""
        return {
            OPTIMIZER_STEPS: self.optimizer_steps,
            PLANNED_OPTIMIZER_STEPS: self.planned_optimizer_steps,
        }


def get_progress(trial: FrozenTrial) -> Progress | None:
    """Return the recorded progress of a trial; None if there is none."""
    recorded = trial.user_attrs
    if not {OPTIMIZER_STEPS, PLANNED_OPTIMIZER_STEPS} <= recorded.keys():
        return None
    return Progress(recorded[OPTIMIZER_STEPS], recorded[PLANNED_OPTIMIZER_STEPS])


def get_error(trial: FrozenTrial) -> str | None:
    """Return the recorded error of a failed trial in one line; None if there is none."""
    error = trial.user_attrs.get(ERROR)
    return None if error is None else " ".join(str(error).split())


def require_validation_auc(trial: FrozenTrial) -> float:
    """Return the validation AUC of a finished trial.

    Raises:
        ValueError: the trial did not finish.
    """
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no AUC")
    return trial.value


def rank_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the finished trials sorted by validation AUC, highest first; ties are sorted by trial number.

    AUCs are compared as they are reported: equal ones may differ in their last bit.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(finished, key=lambda trial: (-round(require_validation_auc(trial), DECIMALS), trial.number))


def get_starting_values(params: Params) -> dict[str, Value]:
    """Return the values of trial 0: the value in params.yaml of each searched parameter."""
    return {name: get_value(params, name) for name in params.tune.space if is_applicable(params, name, {})}


def suggest_params(trial: optuna.Trial, params: Params) -> Params:
    """Draw a trial's values from the search space and return the parameters of the trial (`apply_values`).

    Conditional parameters are drawn only if they apply: a clipping threshold is not drawn without clipping.

    Raises:
        UserError: the drawn values are an invalid combination.
    """
    values: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kind_first_sort_key):
        if is_applicable(params, name, values):
            dimension = _extend_dimension(params.tune.space[name], get_value(params, name))
            values[name] = _draw_value(trial, name, dimension)
    return apply_values(params, values)


def select_valid_values(params: Params, values: Values) -> dict[str, Value]:
    """Return the values, drawn in another study, that are within the search space of `params`."""
    valid: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kind_first_sort_key):
        if name in values and is_applicable(params, name, valid):
            dimension = _extend_dimension(params.tune.space[name], get_value(params, name))
            if _contains_value(dimension, values[name]):
                valid[name] = values[name]
    return valid


def _contains_value(dimension: Dimension, value: Value) -> bool:
    match dimension:
        case Choices():
            return value in dimension.choices
        case IntRange():
            return type(value) is int and dimension.low <= value <= dimension.high
        case FloatRange():
            return type(value) is float and dimension.low <= value <= dimension.high


def _draw_value(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    match dimension:
        case Choices():
            drawn: Value | None = trial.suggest_categorical(name, dimension.choices)
        case IntRange():
            drawn = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
        case FloatRange():
            drawn = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if drawn is None:  # a choice may be None in Optuna, but not in params.yaml
        raise TypeError(f"{name}: drew no value")
    return drawn


def _extend_dimension(dimension: Dimension, start: Any) -> Dimension:
    """Return a dimension that contains `start`, the value of trial 0, which is None if it has no value."""
    match dimension:
        case _ if start is None:
            return dimension
        case Choices():
            missing = [] if start in dimension.choices else [start]
            return dimension.model_copy(update={"choices": [*dimension.choices, *missing]})
        case _:
            bounds = {"low": min(dimension.low, start), "high": max(dimension.high, start)}
            return dimension.model_copy(update=bounds)


def apply_values(params: Params, values: Values) -> Params:
    """Return a copy of `params` with the values of a trial, and the number of threads that trials have.

    A trial trains in one process (`train.ranks` 1): cores are used best by training several trials at once.

    Raises:
        UserError: the values are an invalid combination.
    """
    try:
        return replace_values(params, {"train.threads": params.tune.threads, **values, "train.ranks": 1})
    except ValidationError as error:
        drawn = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise UserError(f"params.yaml: tune.space allows {drawn}, but {location}: {first['msg']}") from None
