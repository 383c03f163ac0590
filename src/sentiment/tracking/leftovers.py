"""What a local MLflow store keeps of runs that were deleted, and of runs that it no longer knows."""

import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from sentiment.errors import UserError
from sentiment.settings import load_settings, repository_root
from sentiment.tracking.store import default_tracking_uri, tracking_uri

RUN = re.compile(r"[0-9a-f]{32}")


def is_local() -> bool:
    """Whether runs go to the sqlite store in `mlruns/`, and it exists."""
    return tracking_uri(load_settings()) == default_tracking_uri() and _database().is_file()


def deleted_runs(days: float) -> list[str]:
    """Return the ids of runs that were deleted more than so many days ago."""
    before = (time.time() - days * 86400) * 1000
    query = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_time < ?"
    return [row[0] for row in _rows(query, before)]


def purge_deleted_runs(days: float) -> None:
    """Remove those runs, experiments deleted as long ago, and their artifacts, for good."""
    uri = default_tracking_uri()
    age = f"{int(days)}d{int(days * 24 % 24)}h"
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    done = subprocess.run([*command, "--older-than", age], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"`mlflow gc` failed: {lines[-1] if lines else done.returncode}")


def orphaned_artifacts() -> list[Path]:
    """Return the folders of artifacts whose run or model is not in the store any more."""
    folder = repository_root() / "mlruns" / "artifacts"
    runs = {row[0] for row in _rows("SELECT run_uuid FROM runs")}
    models = {row[0] for row in _rows("SELECT model_id FROM logged_models")}
    of_runs = [path for path in folder.glob("*") if RUN.fullmatch(path.name) and path.name not in runs]
    of_models = [path for path in folder.glob("models/m-*") if path.name not in models]
    return sorted(of_runs + of_models)


def _database() -> Path:
    return repository_root() / "mlruns" / "mlflow.db"


def _rows(query: str, *values: float) -> list[tuple[str]]:
    try:
        with closing(sqlite3.connect(f"{_database().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{_database()}: cannot be read: {error}") from None
