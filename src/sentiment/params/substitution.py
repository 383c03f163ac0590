"""Any parameter of the model and its training, named by a dotted path."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sentiment.params.root import Params
from sentiment.params.section import kind_of, variant_fields, variants
from sentiment.params.tune import Choices, Dimension

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
