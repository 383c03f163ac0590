"""From the text of `params.yaml` to checked parameters, or to a list of everything that is wrong with it."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams, TokenizeParams
from sentiment.params.model import ModelParams
from sentiment.params.search_space import validate_sampler_and_pruner, validate_search_space
from sentiment.params.section import Section, list_variant_fields
from sentiment.params.train import TrainParams
from sentiment.params.tune import TuneParams

SPACE_LOCATION = ("tune", "space")

FORMER_NAMES = {
    "average": "ema_decay",
    "checks_per_epoch": "evaluations_per_epoch",
    "confirm": "holdout",
    "embedding_units": "embedding_dim",
    "end_share": "end_factor",
    "keep": "truncation",
    "level": "confidence_level",
    "longest": "max_characters",
    "most": "max_share",
    "repeats": "duplicates",
    "share": "weight",
    "shortest": "min_characters",
    "unknown_rate": "oov_rate",
}
"""Keys under other names of today, which spelling does not suggest."""


class EvaluateParams(Section):
    """How the models are judged."""

    confidence_level: Annotated[float, Field(gt=0, lt=1)]
    """Confidence level of the intervals."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """Probability from which a review counts as positive."""


class Params(Section):
    """Every knob that changes the result, a section per stage; `model` serves train and tune."""

    download: DownloadParams
    tokenize: TokenizeParams
    model: ModelParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read and check every parameter.

    Raises UserError that lists all faults at once, each with the file, the dotted path and what would be
    right, where the file is missing, not YAML 1.2, or not what `Params` describes.
    """
    content = _read_yaml(path)
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        faults = [_format_error(fault, content) for fault in error.errors() if not _is_consequence(fault)]
        raise UserError(_format_errors(path, faults + _validate_other_entries(error, content))) from None
    faults = validate_search_space(params) or validate_sampler_and_pruner(params)
    if faults:
        raise UserError(_format_errors(path, faults))
    return params


def _validate_other_entries(error: ValidationError, content: Mapping[str, Any]) -> list[str]:
    """Return the faults of the search space's other entries, where nothing but some entries is at fault."""
    spoiled = {fault["loc"][2] for fault in error.errors() if fault["loc"][:2] == SPACE_LOCATION}
    if any(fault["loc"][:2] != SPACE_LOCATION or len(fault["loc"]) == 2 for fault in error.errors()):
        return []
    tune = content["tune"]
    rest = {name: entry for name, entry in tune["space"].items() if name not in spoiled}
    try:
        return validate_search_space(Params.model_validate({**content, "tune": {**tune, "space": rest}}))
    except ValidationError:  # a key that is no text is named otherwise than it stands there
        return []


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected sections such as `download:` and `train:`, found none")
    return content


def _format_errors(path: Path, faults: Iterable[str]) -> str:
    lines = list(faults)
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return "\n".join([f"{path}: {count}", *(f"  {line}" for line in lines)])


def _is_consequence(fault: ErrorDetails) -> bool:
    """Whether a list is called too short only because pydantic does not count its faulty items."""
    return fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]


def _format_error(fault: ErrorDetails, content: Mapping[str, Any]) -> str:
    keys, siblings = _resolve_location(fault["loc"], content)
    name = ".".join(keys)
    match fault["type"]:
        case "missing":
            return f"{name}: required, but not there"
        case "extra_forbidden":
            return f"{name}: unknown key{_suggest_key(keys, siblings)}"
        case "union_tag_not_found":
            return f"{name}.kind: required, but not there"
        case "union_tag_invalid":
            context = fault["ctx"]
            return f"{name}.kind: must be one of {context['expected_tags']}, not '{context['tag']}'"
        case "too_short":
            context = fault["ctx"]
            items = "1 item" if context["min_length"] == 1 else f"{context['min_length']} items"
            return f"{name}: at least {items}, found {context['actual_length']}"
        case "tuple_type":
            return f"{name}: a list (found {fault['input']!r})"
    if keys[-1] == "[key]":  # YAML reads 0, true and null as no text
        return f"{'.'.join(keys[:-2])}: the key {keys[-2]} must be text: write it in quotes"
    expected = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    given = "" if isinstance(fault["input"], Mapping) else f" (found {fault['input']!r})"
    return f"{name}: {expected if expected != fault['msg'] else fault['msg']}{given}"


def _resolve_location(location: tuple[int | str, ...], content: Any) -> tuple[list[str], Mapping[str, Any]]:
    """Return the keys of a fault without the variant names that pydantic puts between them.

    Also returns the mapping that holds the last key.
    """
    keys: list[str] = []
    holder: Mapping[str, Any] = {}
    node = content
    entered = True  # a variant may have a key of its own name: only the first one is the variant's
    for part in location:
        if entered and isinstance(node, Mapping) and node.get("kind") == part:
            entered = False
            continue
        entered = True
        keys.append(str(part))
        if isinstance(node, Mapping):
            holder = node
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    return keys, holder


def _suggest_key(keys: list[str], siblings: Mapping[str, Any]) -> str:
    known = list_variant_fields(Params, keys[:-1], siblings.get("kind"))
    unused = [name for name in known if name not in siblings]
    close = [name for name in unused if name == FORMER_NAMES.get(keys[-1])]
    close = close or difflib.get_close_matches(keys[-1], unused, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(known)}"
