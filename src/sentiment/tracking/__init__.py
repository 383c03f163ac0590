"""The one door to MLflow."""

from sentiment.tracking.run import Run, start_run
from sentiment.tracking.store import Store, open_store

__all__ = ["Run", "Store", "open_store", "start_run"]
