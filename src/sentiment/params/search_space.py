"""The search space: its dotted parameter names, its grid, and the rules between its settings."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from sentiment.params.root import Params
from sentiment.params.section import kind_of, variant_fields, variants
from sentiment.params.tune import Choices, Dimension, GridSampling, HyperbandPruning, IntRange

SEARCHABLE = ("model", "train")
"""Sections that the search may change: what made the data stays as it is."""

Value = bool | int | float | str
Values = Mapping[str, Value]


def substituted(params: Params, values: Values) -> Params:
    """Return `params` with the parameters that `values` names by dotted path replaced.

    Where a `kind` changes, the keys that the new variant does not have are dropped.
    Raises ValidationError where a value is out of range, KeyError where a name does not exist.
    """
    content = params.model_dump()
    for name in sorted(values, key=kinds_first):
        *sections, key = name.split(".")
        holder = content
        for section in sections:
            holder = holder[section]
        holder[key] = values[name]
        if key == "kind":
            known = variant_fields(Params, sections, values[name])
            for stale in [k for k in holder if k not in known]:
                del holder[stale]
    return Params.model_validate(content)


def applicable(params: Params, name: str, values: Values) -> bool:
    """Whether `name` is a parameter of the variants that `params` and `values` choose.

    `train.clip.threshold` is one of clipping by norm and by value, but not of no clipping.
    """
    *sections, key = name.split(".")
    kind = values.get(".".join([*sections, "kind"]), value_at(params, ".".join([*sections, "kind"])))
    return key in variant_fields(Params, sections, kind)


def space_faults(params: Params) -> list[str]:
    """Say what is wrong with the search space: names that do not exist, values out of range."""
    faults = []
    for name, dimension in params.tune.space.items():
        where = f"tune.space.{name}"
        *sections, key = name.split(".")
        if sections[:1] == [] or sections[0] not in SEARCHABLE:
            faults.append(f"{where}: only parameters of {' and '.join(SEARCHABLE)} can be searched")
        elif not any(key in variant.model_fields for variant in variants(Params, sections)):
            faults.append(f"{where}: no such parameter in params.yaml")
        else:
            faults += [f"{where}: {fault}" for fault in _value_faults(params, name, dimension)]
            start = value_at(params, name)
            if getattr(dimension, "log", False) and start is not None and start <= 0:
                faults.append(
                    f"{where}: a logarithmic range cannot hold {start}, the value of {name} (trial 0)"
                )
    return faults


def _value_faults(params: Params, name: str, dimension: Dimension) -> list[str]:
    ends = dimension.choices if isinstance(dimension, Choices) else [dimension.low, dimension.high]
    *sections, key = name.split(".")
    if key == "kind":
        known = {str(kind_of(variant)): variant for variant in variants(Params, sections)}
        unknown = [f"{end!r} is not one of {', '.join(known)}" for end in ends if end not in known]
        holder = ".".join(sections)
        needed = [
            f"{end!r} needs {holder}.{field}, which neither params.yaml nor tune.space has"
            for end in ends
            if end in known
            for field, info in known[str(end)].model_fields.items()
            if info.is_required() and value_at(params, f"{holder}.{field}") is None
            if f"{holder}.{field}" not in params.tune.space
        ]
        return unknown + needed
    faults = []
    for end in ends:
        if not applicable(params, name, {}):
            break  # belongs to a variant that only the search chooses; its trials are checked as they come
        try:
            substituted(params, {name: end})
        except ValidationError as error:
            faults.append(f"{end!r}: {error.errors()[0]['msg']}")
    return faults


def kinds_first(name: str) -> tuple[bool, str]:
    """Sort key that puts every `kind` in front, since it decides which other keys there are."""
    return not name.endswith(".kind"), name


def value_at(params: Params, name: str) -> Any:
    """Return the parameter that a dotted path names, None where the present variants do not have it."""
    node: Any = params
    for key in name.split("."):
        node = getattr(node, key, None)
    return node


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


def most_checks(params: Params) -> int:
    """Return the checks of the longest training that the search may draw."""
    epochs = [params.train.epochs]
    dimension = params.tune.space.get("train.epochs")
    if isinstance(dimension, Choices):
        epochs += [int(choice) for choice in dimension.choices]
    elif dimension is not None:
        epochs.append(int(dimension.high))
    return max(epochs) * params.tune.evaluations_per_epoch


def strategy_faults(params: Params) -> list[str]:
    """Say what is wrong with sampler and pruner; the search space must be without fault."""
    return _grid_faults(params) + _pruner_faults(params)


def _grid_faults(params: Params) -> list[str]:
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return []
    ranges = {name: dimension for name, dimension in tune.space.items() if not isinstance(dimension, Choices)}
    if tune.warm_start is not None:
        return ["tune.warm_start: null with tune.sampler.kind: grid, which tries every combination anyway"]
    without = [
        f"tune.space.{name}.points: required by tune.sampler.kind: grid, but not there"
        for name, dimension in ranges.items()
        if dimension.points is None
    ]
    if without:
        return without
    size, needed = grid_size(params), grid_trials(params)
    if needed <= tune.trials:
        return []
    return [
        f"tune.trials: the grid has {size:,} points, which with trial 0 make {needed:,} trials: "
        f"allow so many, or make the grid smaller (found {tune.trials:,})"
    ]


def _pruner_faults(params: Params) -> list[str]:
    pruner, checks = params.tune.pruner, most_checks(params)
    if not isinstance(pruner, HyperbandPruning) or pruner.min_resource <= checks:
        return []
    return [
        f"tune.pruner.min_resource: at most {checks}, the checks of a training "
        f"(train.epochs times tune.evaluations_per_epoch) (found {pruner.min_resource})"
    ]
