"""Which code and which DVC experiment a run comes from."""

import os
import subprocess
from functools import cache

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

WRITTEN_BY_STAGES = (":!dvc.lock", ":!metrics")
"""Tracked files that a pipeline run itself rewrites: they do not make the code's tree dirty."""


@cache
def source_tags() -> dict[str, str]:
    """Return tags for the git commit, whether the tree differs from it, and the DVC experiment's name.

    The commit stands under MLflow's own name too, which the UI shows as the run's version.

    Outside a git repository, or in one without commits, there is nothing to say about the commit.
    """
    tags = {}
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["git.commit"] = tags[MLFLOW_GIT_COMMIT] = commit
        changes = _git("status", "--porcelain", "--", ".", *WRITTEN_BY_STAGES)
        tags["git.dirty"] = "true" if changes else "false"
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.experiment"] = experiment
    return tags


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
