"""Load and validate `params.yaml`; all validation errors are reported at once."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams, TokenizeParams
from sentiment.params.evaluate import EvaluateParams
from sentiment.params.model import ModelParams
from sentiment.params.retrain import RetrainParams
from sentiment.params.search_space import format_message, validate_sampler_and_pruner, validate_search_space
from sentiment.params.section import Section, list_variant_fields
from sentiment.params.train import TrainParams
from sentiment.params.tune import TuneParams

SPACE_LOCATION = ("tune", "space")

FORMER_NAMES = {
    "average": "ema_decay",
    "checks_per_epoch": "evaluations_per_epoch",
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
"""Old and new names of renamed parameters that `difflib` would not match by their spelling."""

_NO_HOLDOUT_FOLD = (
    "; remove it: the trial with the highest validation AUC is the winner, and download.split.holdout is the "
    "fraction of held-out reviews"
)

HINTS = {
    "download.split.holdout": "; it is the fraction of reviews on which the baseline and the tuned model are "
    "compared, as in train: 0.64, validation: 0.06, holdout: 0.1, test: 0.2",
    "train.ranks": "; 1 trains in one process, as before this key existed",
    "tune.holdout": _NO_HOLDOUT_FOLD,
    "tune.confirm": _NO_HOLDOUT_FOLD,
}
"""Endings of the error messages about keys that files of earlier versions lack or have, by dotted path."""


class Params(Section):
    """All parameters that affect the results, in sections by stage. train and tune share `model`."""

    download: DownloadParams
    """Sources, splits and validation of the reviews."""
    tokenize: TokenizeParams
    """Tokenization."""
    model: ModelParams
    """Model architecture."""
    train: TrainParams
    """Training."""
    tune: TuneParams
    """Hyperparameter tuning."""
    evaluate: EvaluateParams
    """Evaluation."""
    retrain: RetrainParams
    """Scheduled retraining."""


def load_params(path: Path = paths.PARAMS) -> Params:
    """Load and validate all parameters.

    Args:
        path: YAML 1.2 file.

    Returns:
        The validated parameters.

    Raises:
        UserError: the file does not exist, is not valid YAML or does not conform to `Params`. The message
            lists every validation error with the dotted path of the parameter and the expected value.
    """
    content = _read_yaml(path)
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        messages = [
            _format_error(details, content)
            for details in error.errors()
            if not _is_spurious_length_error(details)
        ]
        raise UserError(_format_report(path, messages + _validate_remaining_space(error, content))) from None
    messages = validate_search_space(params) or validate_sampler_and_pruner(params)
    if messages:
        raise UserError(_format_report(path, messages))
    return params


def _validate_remaining_space(error: ValidationError, content: Mapping[str, Any]) -> list[str]:
    """Validate the search-space entries without errors, if all errors are in other entries of the space.

    Their validation needs all other parameters of params.yaml, which must be valid.
    """
    locations = [details["loc"] for details in error.errors()]
    if any(location[:2] != SPACE_LOCATION or len(location) == 2 for location in locations):
        return []
    invalid_names = {location[2] for location in locations}
    tune = content["tune"]
    remaining = {name: entry for name, entry in tune["space"].items() if name not in invalid_names}
    try:
        return validate_search_space(Params.model_validate({**content, "tune": {**tune, "space": remaining}}))
    except ValidationError:  # pydantic reports a key that is not a string under another name
        return []


def _read_yaml(path: Path) -> Mapping[str, Any]:
    """Parse a YAML file. Raises UserError if it is missing, invalid or not a mapping."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the command in the root of the repository") from None
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


def _format_report(path: Path, messages: Iterable[str]) -> str:
    lines = list(messages)
    count = "1 validation error" if len(lines) == 1 else f"{len(lines)} validation errors"
    return "\n".join([f"{path}: {count}", *(f"  {line}" for line in lines)])


def _is_spurious_length_error(details: ErrorDetails) -> bool:
    """Return whether a list is reported as too short only because pydantic ignores its invalid items."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _format_error(details: ErrorDetails, content: Mapping[str, Any]) -> str:
    """Return a pydantic error as one line: the dotted path and the expected value."""
    keys, siblings = _resolve_location(details["loc"], content)
    name = ".".join(keys)
    match details["type"]:
        case "missing":
            return f"{name}: required key is missing{HINTS.get(name, '')}"
        case "extra_forbidden":
            return f"{name}: unknown key{HINTS.get(name) or _suggest_key(keys, siblings)}"
        case "union_tag_not_found":
            return f"{name}.kind: required key is missing"
        case "union_tag_invalid":
            context = details["ctx"]
            return f"{name}.kind: must be one of {context['expected_tags']}, not '{context['tag']}'"
        case "too_short":
            context = details["ctx"]
            items = "1 item" if context["min_length"] == 1 else f"{context['min_length']} items"
            return f"{name}: must have at least {items}, found {context['actual_length']}"
        case "tuple_type":
            return f"{name}: must be a list (found {details['input']!r})"
        case "model_attributes_type" | "model_type" | "dict_type":
            known = ", ".join(list_variant_fields(Params, keys, None))
            keys_of_section = f" with the keys {known}" if known else ""
            return f"{name}: must be a section{keys_of_section} (found {details['input']!r})"
        case "literal_error" if keys[-1] == "[key]":
            parent = ".".join(keys[:-2])
            return f"{parent}.{keys[-2]}: unknown key; valid keys: {details['ctx']['expected']}"
    if keys[-1] == "[key]":  # YAML parses 0, true and null as non-strings
        return f"{'.'.join(keys[:-2])}: the key {keys[-2]} must be a string; write it in quotes"
    given = "" if isinstance(details["input"], Mapping) else f" (found {details['input']!r})"
    return f"{name}: {format_message(details)}{given}"


def _resolve_location(location: tuple[int | str, ...], content: Any) -> tuple[list[str], Mapping[str, Any]]:
    """Return the keys of an error location, without the variant names that pydantic inserts.

    Also returns the mapping that contains the last key.
    """
    keys: list[str] = []
    parent: Mapping[str, Any] = {}
    node = content
    may_be_variant = True  # pydantic inserts a variant's name once; a key of the same name may follow
    for part in location:
        if may_be_variant and isinstance(node, Mapping) and node.get("kind") == part:
            may_be_variant = False
            continue
        may_be_variant = True
        keys.append(str(part))
        if isinstance(node, Mapping):
            parent = node
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    return keys, parent


def _suggest_key(keys: list[str], siblings: Mapping[str, Any]) -> str:
    known = list_variant_fields(Params, keys[:-1], siblings.get("kind"))
    unused = [name for name in known if name not in siblings]
    matches = [name for name in unused if name == FORMER_NAMES.get(keys[-1])]
    matches = matches or difflib.get_close_matches(keys[-1], unused, n=1)
    return f"; did you mean '{matches[0]}'?" if matches else f"; valid keys: {', '.join(known)}"
