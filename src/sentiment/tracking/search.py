"""Runs of any experiment, deleted ones included, found by id or by tags, read and never resumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sentiment.tracking.mlflow_store import Store


@dataclass(frozen=True)
class FoundRun:
    """A run as the store has it.

    Attributes:
        id: id of the run.
        tags: tags of the run; for a trial, also those of the run of its search that it does not have itself.
        experiment: name of the experiment.
        is_deleted: whether the run is in the trash.
    """

    id: str
    tags: Mapping[str, str]
    experiment: str
    is_deleted: bool


def open_database(path: Path) -> Store:
    """Return the MLflow store in an SQLite file, to find runs in it; the configured store stays as it is."""
    return Store(MlflowClient(f"sqlite:///{path}"), experiment_id="0")


def find_run(store: Store, run_id: str) -> FoundRun | None:
    """Return a run by its id; None if the store does not have it."""
    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    return _read(store, run, store.client.get_experiment(run.info.experiment_id))


def find_runs(store: Store, tags: Mapping[str, str]) -> list[FoundRun]:
    """Return the runs with these tags in all experiments, newest first."""
    experiments = {
        experiment.experiment_id: experiment
        for experiment in store.client.search_experiments(view_type=ViewType.ALL)
    }
    condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = store.client.search_runs(
        list(experiments), condition, ViewType.ALL, order_by=["attributes.start_time DESC"]
    )
    return [_read(store, run, experiments[run.info.experiment_id]) for run in found]


def _read(store: Store, run: Run, experiment: Experiment) -> FoundRun:
    tags = dict(run.data.tags)
    if parent := tags.get(MLFLOW_PARENT_RUN_ID):
        tags = {**store.client.get_run(parent).data.tags, **tags}
    return FoundRun(run.info.run_id, tags, experiment.name, run.info.lifecycle_stage != "active")
