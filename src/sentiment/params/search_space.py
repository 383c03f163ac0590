"""The search space: its dotted parameter names, its grid, and the rules between its settings."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from sentiment.params.section import find_variants, get_kind, list_variant_fields
from sentiment.params.tune import Choices, Dimension, GridSampling, HyperbandPruning, IntRange

if TYPE_CHECKING:  # `loading` imports this module
    from sentiment.params.loading import Params

SEARCHABLE = ("model", "train")
"""Sections that the search may change: what made the data stays as it is."""

Value = bool | int | float | str
Values = Mapping[str, Value]


def replace_values(params: "Params", values: Values) -> "Params":
    """Return `params` with the parameters that `values` names by dotted path replaced.

    Where a `kind` changes, the keys that the new variant does not have are dropped.
    Raises ValidationError where a value is out of range, KeyError where a name does not exist.
    """
    content = params.model_dump()
    for name in sorted(values, key=kind_first_sort_key):
        *sections, key = name.split(".")
        holder = content
        for section in sections:
            holder = holder[section]
        holder[key] = values[name]
        if key == "kind":
            known = list_variant_fields(type(params), sections, values[name])
            for stale in [k for k in holder if k not in known]:
                del holder[stale]
    return type(params).model_validate(content)


def is_applicable(params: "Params", name: str, values: Values) -> bool:
    """Whether `name` is a parameter of the variants that `params` and `values` choose.

    `train.clip.threshold` is one of clipping by norm and by value, but not of no clipping.
    """
    *sections, key = name.split(".")
    kind = values.get(".".join([*sections, "kind"]), get_value(params, ".".join([*sections, "kind"])))
    return key in list_variant_fields(type(params), sections, kind)


def validate_search_space(params: "Params") -> list[str]:
    """Say what is wrong with the search space: names that do not exist, values out of range."""
    faults = []
    for name, dimension in params.tune.space.items():
        where = f"tune.space.{name}"
        *sections, key = name.split(".")
        if sections[:1] == [] or sections[0] not in SEARCHABLE:
            faults.append(f"{where}: only parameters of {' and '.join(SEARCHABLE)} can be searched")
        elif not any(key in variant.model_fields for variant in find_variants(type(params), sections)):
            faults.append(f"{where}: no such parameter in params.yaml")
        else:
            faults += [f"{where}: {fault}" for fault in _validate_values(params, name, dimension)]
            start = get_value(params, name)
            if getattr(dimension, "log", False) and start is not None and start <= 0:
                faults.append(
                    f"{where}: a logarithmic range cannot hold {start}, the value of {name} (trial 0)"
                )
    return faults


def _validate_values(params: "Params", name: str, dimension: Dimension) -> list[str]:
    ends = dimension.choices if isinstance(dimension, Choices) else [dimension.low, dimension.high]
    *sections, key = name.split(".")
    if key == "kind":
        known = {str(get_kind(variant)): variant for variant in find_variants(type(params), sections)}
        unknown = [f"{end!r} is not one of {', '.join(known)}" for end in ends if end not in known]
        holder = ".".join(sections)
        needed = [
            f"{end!r} needs {holder}.{field}, which neither params.yaml nor tune.space has"
            for end in ends
            if end in known
            for field, info in known[str(end)].model_fields.items()
            if info.is_required() and get_value(params, f"{holder}.{field}") is None
            if f"{holder}.{field}" not in params.tune.space
        ]
        return unknown + needed
    faults = []
    for end in ends:
        if not is_applicable(params, name, {}):
            break  # belongs to a variant that only the search chooses; its trials are checked as they come
        try:
            replace_values(params, {name: end})
        except ValidationError as error:
            faults.append(f"{end!r}: {error.errors()[0]['msg']}")
    return faults


def kind_first_sort_key(name: str) -> tuple[bool, str]:
    """Sort key that puts every `kind` in front, since it decides which other keys there are."""
    return not name.endswith(".kind"), name


def get_value(params: "Params", name: str) -> Any:
    """Return the parameter that a dotted path names, None where the present variants do not have it."""
    node: Any = params
    for key in name.split("."):
        node = getattr(node, key, None)
    return node


Combination = dict[str, Value]


def compute_grid_size(params: "Params") -> int:
    """Return how many combinations there are, without making them: there may be billions.

    Every range must have `points`.
    """
    axes = _list_axes(params)
    return sum(math.prod(len(axes[name]) for name in names) for _, names in _iterate_kinds(params, axes))


def count_grid_trials(params: "Params") -> int:
    """Return how many trials a grid makes, trial 0 among them. Every range must have `points`."""
    return compute_grid_size(params) + (not is_trial_0_in_grid(params))


def iterate_grid(params: "Params") -> Iterator[Combination]:
    """Yield every combination once, in order; a parameter is left out where no variant drawn has it.

    Every range must have `points`.
    """
    axes = _list_axes(params)
    for kinds, names in _iterate_kinds(params, axes):
        for values in itertools.product(*(axes[name] for name in names)):
            yield {**kinds, **dict(zip(names, values, strict=True))}


def is_trial_0_in_grid(params: "Params") -> bool:
    """Whether the configuration of params.yaml is one of the combinations."""
    present = [name for name in params.tune.space if is_applicable(params, name, {})]
    return all(
        any(
            _is_same_value(get_value(params, name), value)
            for value in list_grid_values(params.tune.space[name])
        )
        for name in present
    )


def is_same_combination(one: Combination, other: Combination) -> bool:
    """Whether two combinations are one but for rounding."""
    return one.keys() == other.keys() and all(_is_same_value(one[name], other[name]) for name in one)


def _is_same_value(one: Value, other: Value) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other)


def _list_axes(params: "Params") -> dict[str, list[Value]]:
    return {name: list_grid_values(params.tune.space[name]) for name in sorted(params.tune.space)}


def list_grid_values(dimension: Dimension) -> list[Value]:
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


def _iterate_kinds(params: "Params", axes: dict[str, list[Value]]) -> Iterator[tuple[Combination, list[str]]]:
    """Yield each combination of the space's kinds, and which of the other parameters there are under it."""
    kinds = [name for name in axes if name.endswith(".kind")]
    others = [name for name in axes if name not in kinds]
    for chosen in itertools.product(*(axes[name] for name in kinds)):
        values = dict(zip(kinds, chosen, strict=True))
        yield values, [name for name in others if is_applicable(params, name, values)]


def compute_max_evaluations(params: "Params") -> int:
    """Return the checks of the longest training that the search may draw."""
    epochs = [params.train.epochs]
    dimension = params.tune.space.get("train.epochs")
    if isinstance(dimension, Choices):
        epochs += [int(choice) for choice in dimension.choices]
    elif dimension is not None:
        epochs.append(int(dimension.high))
    return max(epochs) * params.tune.evaluations_per_epoch


def validate_sampler_and_pruner(params: "Params") -> list[str]:
    """Say what is wrong with sampler and pruner; the search space must be without fault."""
    return _validate_grid(params) + _validate_pruner(params)


def _validate_grid(params: "Params") -> list[str]:
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
    size, needed = compute_grid_size(params), count_grid_trials(params)
    if needed <= tune.trials:
        return []
    return [
        f"tune.trials: the grid has {size:,} points, which with trial 0 make {needed:,} trials: "
        f"allow so many, or make the grid smaller (found {tune.trials:,})"
    ]


def _validate_pruner(params: "Params") -> list[str]:
    pruner, checks = params.tune.pruner, compute_max_evaluations(params)
    if not isinstance(pruner, HyperbandPruning) or pruner.min_resource <= checks:
        return []
    return [
        f"tune.pruner.min_resource: at most {checks}, the checks of a training "
        f"(train.epochs times tune.evaluations_per_epoch) (found {pruner.min_resource})"
    ]
