"""Search space: access to parameters by dotted path, validation, and grid search."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sentiment.params.section import find_variants, get_kind, list_variant_fields
from sentiment.params.tune import Choices, Dimension, GridSampling, HyperbandPruning, IntRange

if TYPE_CHECKING:  # `loading` imports this module
    from sentiment.params.loading import Params

SEARCHABLE = ("model", "train")
"""Sections that can be tuned. The data stages run once, before tuning."""

Value = bool | int | float | str
Values = Mapping[str, Value]
"""Hyperparameter values by dotted path."""


def replace_values(params: "Params", values: Values) -> "Params":
    """Return a copy of `params` with some parameters replaced.

    If a `kind` changes, the keys that the new variant does not have are removed.

    Args:
        params: parameters to start from.
        values: new values by dotted path.

    Raises:
        pydantic.ValidationError: a value is out of range.
        KeyError: a path does not exist.
    """
    content = params.model_dump()
    for name in sorted(values, key=kind_first_sort_key):
        *sections, key = name.split(".")
        parent = content
        for section in sections:
            parent = parent[section]
        parent[key] = values[name]
        if key == "kind":
            known = list_variant_fields(type(params), sections, values[name])
            for stale in [k for k in parent if k not in known]:
                del parent[stale]
    return type(params).model_validate(content)


def is_applicable(params: "Params", name: str, values: Values) -> bool:
    """Return whether the variants selected by `params` and `values` have the parameter `name`.

    For example, clipping by norm and by value have `train.clip.threshold`, but no clipping does not.
    """
    *sections, key = name.split(".")
    kind = values.get(".".join([*sections, "kind"]), get_value(params, ".".join([*sections, "kind"])))
    return key in list_variant_fields(type(params), sections, kind)


def validate_search_space(params: "Params") -> list[str]:
    """Return the validation errors of the search space: unknown parameters and values out of range."""
    errors = []
    for name, dimension in params.tune.space.items():
        where = f"tune.space.{name}"
        *sections, key = name.split(".")
        if sections[:1] == [] or sections[0] not in SEARCHABLE:
            errors.append(f"{where}: only parameters of {' and '.join(SEARCHABLE)} can be searched")
        elif not any(key in variant.model_fields for variant in find_variants(type(params), sections)):
            errors.append(f"{where}: no such parameter in params.yaml")
        else:
            errors += [f"{where}: {error}" for error in _validate_values(params, name, dimension)]
            initial = get_value(params, name)
            if getattr(dimension, "log", False) and initial is not None and initial <= 0:
                errors.append(
                    f"{where}: a logarithmic range cannot include {initial}, the value of {name} in trial 0"
                )
    return errors


def _validate_values(params: "Params", name: str, dimension: Dimension) -> list[str]:
    """Return the validation errors of a dimension's choices or bounds."""
    values = dimension.choices if isinstance(dimension, Choices) else [dimension.low, dimension.high]
    *sections, key = name.split(".")
    if key == "kind":
        known = {str(get_kind(variant)): variant for variant in find_variants(type(params), sections)}
        unknown = [f"{value!r} is not one of {', '.join(known)}" for value in values if value not in known]
        parent = ".".join(sections)
        needed = [
            f"{value!r} needs {parent}.{field}, which neither params.yaml nor tune.space has"
            for value in values
            if value in known
            for field, info in known[str(value)].model_fields.items()
            if info.is_required() and get_value(params, f"{parent}.{field}") is None
            if f"{parent}.{field}" not in params.tune.space
        ]
        return unknown + needed
    errors = []
    for value in values:
        if not is_applicable(params, name, {}):
            break  # the parameter belongs to a variant that only some trials select; each trial validates it
        try:
            replace_values(params, {name: value})
        except ValidationError as error:
            errors.append(f"{value!r}: {format_message(error.errors()[0])}")
    return errors


def format_message(details: ErrorDetails) -> str:
    """Return the message of a validation error, worded as a requirement: "must be ..."."""
    message = details["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "must be", 1)


def kind_first_sort_key(name: str) -> tuple[bool, str]:
    """Sort key that puts every `kind` first, because it determines which other keys exist."""
    return not name.endswith(".kind"), name


def get_value(params: "Params", name: str) -> Any:
    """Return the parameter at a dotted path, or None if the selected variants do not have it."""
    node: Any = params
    for key in name.split("."):
        node = getattr(node, key, None)
    return node


Combination = dict[str, Value]


def compute_grid_size(params: "Params") -> int:
    """Return the number of combinations without enumerating them, because there may be billions.

    Every range must have `points`.
    """
    values_by_name = _list_values_by_name(params)
    return sum(
        math.prod(len(values_by_name[name]) for name in names)
        for _, names in _iterate_kind_combinations(params, values_by_name)
    )


def count_grid_trials(params: "Params") -> int:
    """Return the number of trials of a grid search, including trial 0. Every range must have `points`."""
    return compute_grid_size(params) + (not is_trial_0_in_grid(params))


def iterate_grid(params: "Params") -> Iterator[Combination]:
    """Yield every combination once, in a fixed order.

    Parameters that the variants of a combination do not have are omitted. Every range must have `points`.
    """
    values_by_name = _list_values_by_name(params)
    for kinds, names in _iterate_kind_combinations(params, values_by_name):
        for values in itertools.product(*(values_by_name[name] for name in names)):
            yield {**kinds, **dict(zip(names, values, strict=True))}


def is_trial_0_in_grid(params: "Params") -> bool:
    """Return whether the configuration in params.yaml, which is trial 0, is one of the combinations."""
    present = [name for name in params.tune.space if is_applicable(params, name, {})]
    return all(
        any(
            _is_same_value(get_value(params, name), value)
            for value in list_grid_values(params.tune.space[name])
        )
        for name in present
    )


def is_same_combination(one: Combination, other: Combination) -> bool:
    """Return whether two combinations are equal up to rounding."""
    return one.keys() == other.keys() and all(_is_same_value(one[name], other[name]) for name in one)


def _is_same_value(one: Value, other: Value) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other)


def _list_values_by_name(params: "Params") -> dict[str, list[Value]]:
    """Return the grid values of every dimension, by its dotted path."""
    return {name: list_grid_values(params.tune.space[name]) for name in sorted(params.tune.space)}


def list_grid_values(dimension: Dimension) -> list[Value]:
    """Return the grid points of a dimension: all choices, or evenly spaced values (geometric if `log`)."""
    if isinstance(dimension, Choices):
        return list(dimension.choices)
    if dimension.points is None:
        raise ValueError("grid search needs points for every range")
    space = np.geomspace if dimension.log else np.linspace
    values = space(dimension.low, dimension.high, dimension.points).tolist()
    values[0], values[-1] = dimension.low, dimension.high  # rounding may exceed the bounds
    if isinstance(dimension, IntRange):
        values = [round(value) for value in values]
    return list(dict.fromkeys(values))


def _iterate_kind_combinations(
    params: "Params", values_by_name: dict[str, list[Value]]
) -> Iterator[tuple[Combination, list[str]]]:
    """Yield each combination of `kind` values, and the other parameters that its variants have."""
    kinds = [name for name in values_by_name if name.endswith(".kind")]
    others = [name for name in values_by_name if name not in kinds]
    for chosen in itertools.product(*(values_by_name[name] for name in kinds)):
        values = dict(zip(kinds, chosen, strict=True))
        yield values, [name for name in others if is_applicable(params, name, values)]


def compute_max_evaluations(params: "Params") -> int:
    """Return the maximum number of intermediate evaluations of a trial in the search space."""
    epochs = [params.train.epochs]
    dimension = params.tune.space.get("train.epochs")
    if isinstance(dimension, Choices):
        epochs += [int(choice) for choice in dimension.choices]
    elif dimension is not None:
        epochs.append(int(dimension.high))
    return max(epochs) * params.tune.evaluations_per_epoch


def validate_sampler_and_pruner(params: "Params") -> list[str]:
    """Return the validation errors of sampler and pruner. The search space must be valid."""
    return _validate_grid(params) + _validate_pruner(params)


def _validate_grid(params: "Params") -> list[str]:
    """Return the validation errors of the grid sampler: options, grid points and number of trials."""
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return []
    ranges = {name: dimension for name, dimension in tune.space.items() if not isinstance(dimension, Choices)}
    if tune.warm_start is not None:
        return ["tune.warm_start: must be null with tune.sampler.kind: grid, which runs every combination"]
    missing = [
        f"tune.space.{name}.points: required key is missing, needed by tune.sampler.kind: grid"
        for name, dimension in ranges.items()
        if dimension.points is None
    ]
    if missing:
        return missing
    size, needed = compute_grid_size(params), count_grid_trials(params)
    if needed <= tune.trials:
        return []
    reason = f"the grid has {size:,} points" + (" and trial 0 is not one of them" if needed > size else "")
    return [
        f"tune.trials: must be at least {needed:,}, because {reason}; or reduce the grid "
        f"(found {tune.trials:,})"
    ]


def _validate_pruner(params: "Params") -> list[str]:
    pruner, evaluations = params.tune.pruner, compute_max_evaluations(params)
    if not isinstance(pruner, HyperbandPruning) or pruner.min_resource <= evaluations:
        return []
    return [
        f"tune.pruner.min_resource: must be at most {evaluations}, the intermediate evaluations of a trial "
        f"(train.epochs times tune.evaluations_per_epoch) (found {pruner.min_resource})"
    ]
