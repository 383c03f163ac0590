"""The one door to MLflow."""

from sentiment.tracking.mlflow_store import Store, open_store
from sentiment.tracking.run import BEST_VALIDATION_AUC, Run, find_tagged_run, reopen_run, start_run

__all__ = [
    "BEST_VALIDATION_AUC",
    "Run",
    "Store",
    "find_tagged_run",
    "open_store",
    "reopen_run",
    "start_run",
]
