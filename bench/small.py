"""The repository in its own folder, with parameters under which every stage takes seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]

SMALL: dict[str, Any] = {
    "download.limit": 400,
    "download.split": {"train": 0.6, "validation": 0.1, "holdout": 0.1, "test": 0.2},
    "tokenize.vocabulary_size": 1500,
    "tokenize.oov_rate": 0.5,
    "model.max_tokens": 64,
    "model.chunk_tokens": 32,
    "model.embedding_dim": 8,
    "model.hidden_units": 8,
    "model.head.units": 4,
    "train.device": "cpu",  # metrics are compared to the last digit, which differs between devices
    "train.threads": 1,
    "train.epochs": 2,
    "train.schedule.warmup_steps": 2,
    "train.ema_decay": 0.5,
    "train.clip.threshold": 1.0,
    "train.optimizer.learning_rate": 0.003,
    "tune.trials": 3,
    "tune.max_parallel": 2,
    "tune.threads": 1,
    "tune.sampler.startup_trials": 1,
    "tune.pruner.startup_trials": 1,
    "tune.space": {
        "train.optimizer.learning_rate": {"kind": "float", "low": 1e-3, "high": 3e-2, "log": True},
        "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 4.0, "log": True},
        "model.hidden_units": {"kind": "categorical", "choices": [4, 8]},
    },
    "retrain.beat_linear": False,  # with so few reviews, the network is not better
}
"""A few hundred real reviews and a model that trains in seconds."""

SKIPPED = ("docs/", "metrics/", "reports/")
"""What a copy does without; it has no dvc.lock either, so that its pipeline runs from the start."""


def copy_repository(folder: Path, changes: Mapping[str, Any] = SMALL) -> None:
    """Copy what git tracks or would track into a new repository, with changed parameters, and commit it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file() and not name.startswith(SKIPPED) and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)  # with its mode: scripts are executable
    set_params(folder, changes)
    for command in (
        ("git", "init", "-q", "-b", "main"),
        ("git", "config", "user.name", "test"),  # DVC commits experiments
        ("git", "config", "user.email", "test@localhost"),
        ("git", "add", "--all"),
        ("git", "commit", "-qm", "small cut"),
    ):
        subprocess.run(command, cwd=folder, env=inherited(), check=True)


def set_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change values in a folder's params.yaml by dotted path."""
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    for name, value in changes.items():
        *sections, key = name.split(".")
        node = content
        for section in sections:
            node = node[section]
        node[key] = value
    yaml.dump(content, folder / "params.yaml")


def inherited() -> dict[str, str]:
    """Return this process's environment without what DVC and MLflow read, its own programs first."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "TUNE_"))
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
