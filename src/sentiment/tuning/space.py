"""The search space of params.yaml, as Optuna sees it."""

from typing import Any

import optuna
from pydantic import ValidationError

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.params.substitution import Value, Values, applicable, kinds_first, substituted, value_at
from sentiment.params.tune import Choices, Dimension, FloatRange, IntRange


def starting_point(params: Params) -> dict[str, Value]:
    """Return the configuration of params.yaml as values of the search space: trial 0."""
    return {name: value_at(params, name) for name in params.tune.space if applicable(params, name, {})}


def suggest(trial: optuna.Trial, params: Params) -> Params:
    """Return `params` with what the trial draws from the space in place.

    Parameters that a drawn variant does not have (a threshold where clipping is off) are not drawn.
    Raises UserError where the values drawn do not go together.
    """
    values: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kinds_first):
        if applicable(params, name, values):
            dimension = _widened(params.tune.space[name], value_at(params, name))
            values[name] = _draw(trial, name, dimension)
    return configured(params, values)


def fitting(params: Params, values: Values) -> dict[str, Value]:
    """Return those of a trial's values that the space of `params` has too, and allows."""
    kept: dict[str, Value] = {}
    for name in sorted(params.tune.space, key=kinds_first):
        if name in values and applicable(params, name, kept):
            dimension = _widened(params.tune.space[name], value_at(params, name))
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
        return substituted(params, values)
    except ValidationError as error:
        drawn = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"params.yaml: tune.space allows {drawn}, but {where}: {fault['msg']}") from None
