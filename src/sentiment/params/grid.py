"""Every combination of a search space."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from sentiment.params.root import Params
from sentiment.params.substitution import Value, applicable, value_at
from sentiment.params.tune import Choices, Dimension, IntRange

Combination = dict[str, Value]


def grid_size(params: Params) -> int:
    """Return how many combinations there are, without making them: there may be billions.

    Every range must have `points`.
    """
    axes = _axes(params)
    return sum(math.prod(len(axes[name]) for name in names) for _, names in _by_kinds(params, axes))


def grid_trials(params: Params) -> int:
    """Return how many trials a grid makes, trial 0 among them. Every range must have `points`."""
    return grid_size(params) + (not trial_0_is_in_grid(params))


def grid(params: Params) -> Iterator[Combination]:
    """Yield every combination once, in order; a parameter is left out where no variant drawn has it.

    Every range must have `points`.
    """
    axes = _axes(params)
    for kinds, names in _by_kinds(params, axes):
        for values in itertools.product(*(axes[name] for name in names)):
            yield {**kinds, **dict(zip(names, values, strict=True))}


def trial_0_is_in_grid(params: Params) -> bool:
    """Whether the configuration of params.yaml is one of the combinations."""
    present = [name for name in params.tune.space if applicable(params, name, {})]
    return all(
        any(_same(value_at(params, name), value) for value in axis(params.tune.space[name]))
        for name in present
    )


def alike(one: Combination, other: Combination) -> bool:
    """Whether two combinations are one but for rounding."""
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other)


def _axes(params: Params) -> dict[str, list[Value]]:
    return {name: axis(params.tune.space[name]) for name in sorted(params.tune.space)}


def axis(dimension: Dimension) -> list[Value]:
    """Return the values of one dimension that a grid takes: evenly spaced, by factors where `log` is set."""
    if isinstance(dimension, Choices):
        return list(dimension.choices)
    if dimension.points is None:
        raise ValueError("a grid needs points of every range")
    space = np.geomspace if dimension.log else np.linspace
    values = space(dimension.low, dimension.high, dimension.points).tolist()
    values[0], values[-1] = dimension.low, dimension.high  # rounding may have led outside
    if isinstance(dimension, IntRange):
        values = [round(value) for value in values]
    return list(dict.fromkeys(values))


def _by_kinds(params: Params, axes: dict[str, list[Value]]) -> Iterator[tuple[Combination, list[str]]]:
    """Yield each combination of the space's kinds, and which of the other parameters there are under it."""
    kinds = [name for name in axes if name.endswith(".kind")]
    others = [name for name in axes if name not in kinds]
    for chosen in itertools.product(*(axes[name] for name in kinds)):
        values = dict(zip(kinds, chosen, strict=True))
        yield values, [name for name in others if applicable(params, name, values)]
