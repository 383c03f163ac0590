"""Parameters under which every stage takes seconds: a small cut of the reviews, and a small model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sentiment import paths

SMALL: dict[str, Any] = {
    "download.limit": 400,
    "download.split": {"train": 0.6, "validation": 0.1, "holdout": 0.1, "test": 0.2},
    "tokenize.vocabulary_size": 1500,
    "tokenize.oov_rate": 0.5,
    "model.max_tokens": 64,
    "model.chunk_tokens": 32,
    "model.embedding_dim": 8,
    "model.hidden_units": 8,
    "train.threads": 1,
    "train.epochs": 2,
    "train.schedule.warmup_steps": 2,
    "train.ema_decay": 0.5,
    "tune.trials": 3,
    "tune.max_parallel": 2,
    "tune.threads": 1,
    "tune.sampler.startup_trials": 1,
    "tune.pruner.startup_trials": 1,
}
"""Values by dotted path. None of them selects another variant, such as another kind of clipping."""


def set_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change values in a folder's params.yaml by dotted path; its comments stay.

    Raises:
        KeyError: a section does not exist.
    """
    yaml = YAML()
    content = yaml.load(folder / paths.PARAMS)
    for name, value in changes.items():
        *sections, key = name.split(".")
        node = content
        for section in sections:
            node = node[section]
        node[key] = value
    yaml.dump(content, folder / paths.PARAMS)


def shrink(folder: Path) -> None:
    """Set the small values in a folder's params.yaml, where it has a value of that kind.

    A parameter that is absent, null or 0 switches something off, which stays as it is.
    """
    content = YAML(typ="safe", pure=True).load(folder / paths.PARAMS)
    set_params(folder, {name: value for name, value in SMALL.items() if _is_used(content, name, value)})


def _is_used(content: Mapping[str, Any], name: str, small: object) -> bool:
    node: Any = content
    for key in name.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    if name == "download.limit":
        return True
    if isinstance(node, Mapping) and isinstance(small, Mapping):
        return node.keys() == small.keys()
    return bool(node)
