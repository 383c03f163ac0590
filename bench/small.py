"""The repository in its own folder, with parameters under which every stage takes seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentiment.reproduction.small_params import SMALL as SMALL_PARAMS
from sentiment.reproduction.small_params import set_params

__all__ = ["ROOT", "SMALL", "copy_repository", "inherited", "set_params"]

ROOT = Path(__file__).parents[1]

SMALL: dict[str, Any] = {
    **SMALL_PARAMS,
    "model.head.units": 4,
    "train.device": "cpu",  # metrics are compared to the last digit, which differs between devices
    "train.clip.threshold": 1.0,
    "train.optimizer.learning_rate": 0.003,
    "tune.space": {
        "train.optimizer.learning_rate": {"kind": "float", "low": 1e-3, "high": 3e-2, "log": True},
        "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 4.0, "log": True},
        "model.hidden_units": {"kind": "categorical", "choices": [4, 8]},
    },
    "retrain.beat_linear": False,  # with so few reviews, the network is not better
    "retrain.max_margin": 0.4,  # with so few test reviews, no smaller one decides
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


def inherited() -> dict[str, str]:
    """Return this process's environment without what DVC, MLflow and Ray read, its own programs first."""
    removed = ("DVC_", "MLFLOW_", "RAY_", "TUNE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
