"""MLflow tracking. Outside this package, only lineage imports mlflow."""

from sentiment.tracking.mlflow_store import Store, open_store
from sentiment.tracking.run import (
    VALIDATION_AUC,
    ModelResult,
    Run,
    dataset_name,
    find_tagged_run,
    reopen_run,
    start_run,
)
from sentiment.tracking.ui import build_run_name

__all__ = [
    "VALIDATION_AUC",
    "ModelResult",
    "Run",
    "Store",
    "build_run_name",
    "dataset_name",
    "find_tagged_run",
    "open_store",
    "reopen_run",
    "start_run",
]
