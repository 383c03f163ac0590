"""Base class of every section of `params.yaml`, and look-ups in the tree of sections."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Immutable group of parameters that rejects unknown keys.

    Validation is strict: a quoted number is a string, not a number, so that DVC and the code read the same
    value.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def get_kind(section: type[Section]) -> str | None:
    """Return the value of `kind` that selects this section, or None if the section has no `kind`."""
    field = section.model_fields.get("kind")
    return None if field is None else str(get_args(field.annotation)[0])


def find_variants(root: type[Section], path: Sequence[str]) -> list[type[Section]]:
    """Return the section classes that are allowed at a path below `root`.

    Args:
        root: section class at which the path starts.
        path: keys from `root` down. Numeric keys, which are list positions, are skipped, because all items of
            a list have the same variants.

    Returns:
        The allowed classes; an empty list if the path does not exist.
    """
    variants = [root]
    for name in path:
        if name.isdigit():
            continue
        fields = [parent.model_fields[name] for parent in variants if name in parent.model_fields]
        variants = [section for field in fields for section in _find_sections(field.annotation)]
    return variants


def list_variant_fields(root: type[Section], path: Sequence[str], kind: object) -> list[str]:
    """Return the sorted keys of the section at a path.

    Args:
        root: section class at which the path starts.
        path: keys from `root` down.
        kind: kind of the variant. If no variant has this kind, the keys of all variants are returned.
    """
    variants = find_variants(root, path)
    selected = [section for section in variants if get_kind(section) == kind]
    return sorted({field for section in selected or variants for field in section.model_fields})


def _find_sections(annotation: Any) -> list[type[Section]]:
    """Return the section classes in a type annotation."""
    if get_origin(annotation) is Annotated:
        return _find_sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [section for member in get_args(annotation) for section in _find_sections(member)]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return []
