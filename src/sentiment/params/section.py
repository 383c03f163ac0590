"""The base of every section of `params.yaml`."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of parameters that knows its keys and refuses all others.

    Strict: a quoted number is a string, not a number, so that DVC and the code see the same value.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def get_kind(section: type[Section]) -> str | None:
    """Return the value of `kind` that selects this section, None where it has no variants."""
    field = section.model_fields.get("kind")
    return None if field is None else str(get_args(field.annotation)[0])


def find_variants(root: type[Section], path: Sequence[str]) -> list[type[Section]]:
    """Return the sections that may stand at a path below `root`, none where the path does not exist.

    Numbers in the path, which are positions in a list, are passed over: all its items are of the same kinds.
    """
    found = [root]
    for name in path:
        if name.isdigit():
            continue
        fields = [holder.model_fields[name] for holder in found if name in holder.model_fields]
        found = [section for field in fields for section in _find_sections(field.annotation)]
    return found


def list_variant_fields(root: type[Section], path: Sequence[str], kind: object) -> list[str]:
    """Return the keys of the section at a path: those of the variant `kind`, where there are variants."""
    found = find_variants(root, path)
    chosen = [section for section in found if get_kind(section) == kind]
    return sorted({field for section in chosen or found for field in section.model_fields})


def _find_sections(annotation: Any) -> list[type[Section]]:
    if get_origin(annotation) is Annotated:
        return _find_sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [section for member in get_args(annotation) for section in _find_sections(member)]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return []
