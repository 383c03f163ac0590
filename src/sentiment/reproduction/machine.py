"""The machine that made the outputs of a stage, compared with this one, by the tags of their MLflow runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sentiment import paths
from sentiment.model.model_config import WEIGHTS_FILE
from sentiment.tracking import Store, open_store
from sentiment.tracking.mlflow_store import has_store
from sentiment.tracking.origin_tags import MODEL_COMMIT_TAG, MODEL_TAG, UNKNOWN
from sentiment.tracking.search import find_runs, open_database

MACHINE_TAGS = ("cpu.", "version.python", "version.torch", "device", "precision")
"""Prefixes of the tags that describe what determines how sums are rounded."""

THREADS_TAG = "cpu.threads"
"""Tag of runs of earlier versions, which is ignored: it had the number of threads before the stage set it to
that of params.yaml, which two runs of one commit share."""

EVALUATE_PREFIX = "evaluate."
"""Prefix of the tags of evaluate, which it adds to the runs of the models."""


def describe_machine(
    stage: str, weights: Mapping[str, str], remade_weights: Mapping[str, str], database: Path
) -> tuple[str, ...] | None:
    """Describe how this machine differs from the one on which a stage ran, as their runs logged it.

    Args:
        stage: stage that trains a model, or evaluate.
        weights: MD5 of the weights that each training stage wrote, by stage.
        remade_weights: the same of the second run.
        database: SQLite file of the MLflow store of the second run.

    Returns:
        A line for each difference; None if no store has the first run. If several runs made equal weights,
        one that ran on a machine like this is enough for no difference.
    """
    if not has_store():
        return None
    training = stage if stage in weights else next(iter(weights))
    prefix = "" if stage in weights else EVALUATE_PREFIX
    before = _read_machines(open_store(), training, weights[training], prefix)
    after = _read_machines(open_database(database), training, remade_weights[training], prefix)
    if not before or not after:
        return None
    return min((_compare(machine, after[0]) for machine in before), key=len)


def list_weights(outputs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the MD5 of the weights that each training stage wrote, by stage.

    Args:
        outputs: MD5 of each output by path, by stage.
    """
    return {
        stage: outputs.get(stage, {}).get((paths.model(candidate) / WEIGHTS_FILE).as_posix(), "")
        for candidate, stage in paths.CANDIDATES.items()
    }


def _read_machines(store: Store, stage: str, weights: str, prefix: str) -> list[dict[str, str]]:
    """Return the tags of the machines on which a stage trained a model, newest first, without the prefix."""
    runs = find_runs(store, {MODEL_TAG: weights, "stage": stage})
    machines = []
    for run in runs:
        if run.tags.get(MODEL_COMMIT_TAG) == UNKNOWN and not prefix:
            continue  # the run was created for a model from DVC's cache
        tags = {
            name.removeprefix(prefix): value for name, value in run.tags.items() if name.startswith(prefix)
        }
        machines.append(
            {
                name: value
                for name, value in tags.items()
                if name.startswith(MACHINE_TAGS) and name != THREADS_TAG
            }
        )
    return [machine for machine in machines if machine]


def _compare(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    names: Sequence[str] = sorted({*before, *after})
    return tuple(
        f"{name} was {before.get(name, 'not set')}, is {after.get(name, 'not set')}"
        for name in names
        if before.get(name) != after.get(name)
    )
