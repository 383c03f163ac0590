"""The search space of params.yaml, as Optuna sees it."""

import optuna
from pydantic import ValidationError

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.params.substitution import Values, applicable, kinds_first, substituted, value_at
from sentiment.params.tune import Choices, Dimension, FloatRange, IntRange

Value = bool | int | float | str


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
            values[name] = _draw(trial, name, params)
    return _configured(params, values)


def _draw(trial: optuna.Trial, name: str, params: Params) -> Value:
    """Draw from a dimension, widened where needed to hold the value in params.yaml, which trial 0 takes."""
    dimension, start = params.tune.space[name], value_at(params, name)
    match dimension:
        case Choices():
            is_new = start is not None and start not in dimension.choices
            drawn: Value = trial.suggest_categorical(name, [*dimension.choices, *([start] if is_new else [])])
        case IntRange():
            drawn = trial.suggest_int(name, *_widened(dimension, start), log=dimension.log)
        case FloatRange():
            drawn = trial.suggest_float(name, *_widened(dimension, start), log=dimension.log)
    return drawn


def _widened(dimension: Dimension, start: Value | None) -> tuple[float, float]:
    ends = [dimension.low, dimension.high, *([] if start is None else [start])]
    return min(ends), max(ends)


def _configured(params: Params, values: Values) -> Params:
    try:
        return substituted(params, values)
    except ValidationError as error:
        drawn = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"params.yaml: tune.space allows {drawn}, but {where}: {fault['msg']}") from None
