"""The MLflow tracking store: connection, error messages, and deletion of runs in the trash."""

import logging
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sentiment.errors import UserError, find_raising_library, register_translator
from sentiment.files import atomic_write
from sentiment.settings import (
    Settings,
    build_sqlite_address,
    find_secrets,
    load_settings,
    repository_root,
    resolve_sqlite_address,
)
from sentiment.tracking.ui import experiment_tags

logger = logging.getLogger(__name__)

os.environ.setdefault(
    "GIT_PYTHON_REFRESH", "quiet"
)  # otherwise mlflow prints a long warning if git is missing
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default, 7, blocks for four minutes
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # runs have only small artifacts
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may contain a password

for name in ("alembic", "mlflow"):  # they log each migration of a new store
    logging.getLogger(name).setLevel(logging.WARNING)
# It logs a traceback for each database error, which `translate_store_error` reports in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)
"""Exceptions that MLflow raises if its store fails: its own, and those of the HTTP or database client."""

DELETED_PATTERN = re.compile(
    r"The (?P<kind>[Ee]xperiment|[Rr]un) '?(?P<id>\w+)'? must be in the 'active' state"
)
"""MLflow's error message about a run or an experiment that is in the trash."""


@dataclass(frozen=True)
class Store:
    """A tracking store and one of its experiments.

    Attributes:
        client: client of the tracking store.
        experiment_id: id of the experiment that runs are logged to.
    """

    client: MlflowClient
    experiment_id: str


def default_tracking_uri() -> str:
    """Return the URI of the SQLite store in `mlruns/`, absolute if possible (`build_sqlite_address`)."""
    return build_sqlite_address(repository_root() / "mlruns" / "mlflow.db")


def tracking_uri(settings: Settings) -> str:
    """Return the tracking URI; a relative SQLite path is resolved against the repository's root."""
    if settings.mlflow_tracking_uri is None:
        return default_tracking_uri()
    return resolve_sqlite_address(settings.mlflow_tracking_uri.get_secret_value())


def open_store() -> Store:
    """Connect to the tracking store, and create the experiment if it does not exist.

    Raises:
        UserError: the store cannot be reached. The message omits the address, which may contain a password.
    """
    settings = load_settings()
    uri = tracking_uri(settings)
    is_local = uri.startswith("sqlite")
    if not is_local and settings.mlflow_tracking_uri is not None:
        logger.info("connecting to the MLflow tracking store (MLFLOW_TRACKING_URI)")
    try:
        if is_local and (database := make_url(uri).database):
            _create_tables(uri, Path(database))
        return _connect(uri, settings.mlflow_experiment_name, is_local)
    except UserError:
        raise
    except Exception as error:  # each type of store raises its own exceptions
        raise UserError(describe_store_error(error)) from None


def _is_default_store() -> bool:
    """Return whether the tracking URI, which MLflow itself may have set, is that of the default store."""
    return tracking_uri(load_settings()) == default_tracking_uri()


def has_store() -> bool:
    """Return whether a tracking store is configured, or the default one exists."""
    return not _is_default_store() or _default_database_path().is_file()


@register_translator
def translate_store_error(error: BaseException) -> UserError | None:
    """Translate an error of the tracking store into an error message; return None for other errors."""
    if not isinstance(error, STORE_ERRORS) or find_raising_library(error, "mlflow", "optuna") == "optuna":
        return None
    return UserError(
        f"{describe_store_error(error)}; once it is available, run the same command again to resume"
    )


def describe_store_error(error: Exception) -> str:
    """Return a one-line message with the cause of an error, without the store's address."""
    cause = _describe_cause(error, tracking_uri(load_settings()))
    location = repository_root() / "mlruns" if _is_default_store() else "MLFLOW_TRACKING_URI"
    if hint := _build_restore_hint(error):
        return f"the MLflow tracking store ({location}) rejected the request: {cause}{hint}"
    return f"Cannot reach the MLflow tracking store ({location}): {cause}"


def _create_tables(uri: str, path: Path) -> None:
    """Create the database file and the tables of a SQLite store atomically, if the file does not exist.

    MLflow takes seconds to create its tables. A process killed meanwhile would leave an unusable file, and
    two processes that create the tables at once would conflict.

    Args:
        uri: tracking URI of the store.
        path: path of the database file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.making"):
        prefix, separator, options = uri.rpartition(f"/{path.name}")
        # rpartition does not find a file name that is percent-encoded in the URI. MLflow then creates the
        # tables when it opens the store, not atomically.
        if separator and not path.exists():
            with atomic_write(path) as temporary:
                MlflowClient(f"{prefix}/{temporary.name}{options}").search_experiments(max_results=1)


def _connect(uri: str, name: str, is_local: bool) -> Store:
    """Connect to a store and return it with the experiment `name`, which is created if it does not exist."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = _find_active_experiment(client, name)
    if experiment is not None:
        for tag, value in experiment_tags().items():
            if tag not in experiment.tags:  # the user may have edited the others
                client.set_experiment_tag(experiment.experiment_id, tag, value)
        return Store(client, str(experiment.experiment_id))
    # With a local store, this process chooses where artifacts are stored; a server chooses by itself.
    location = (repository_root() / "mlruns" / "artifacts").as_uri() if is_local else None
    try:
        return Store(client, client.create_experiment(name, location, experiment_tags()))
    except MlflowException:
        experiment = _find_active_experiment(client, name)  # another process may have just created it
        if experiment is None:
            raise
        return Store(client, str(experiment.experiment_id))


def _find_active_experiment(client: MlflowClient, name: str) -> Experiment | None:
    """Return the experiment; None if it does not exist.

    Raises:
        UserError: the experiment is in the trash, so its name cannot be used.
    """
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage != "active":
        command = _build_restore_command("experiments", "--experiment-id", experiment.experiment_id)
        raise UserError(
            f"the MLflow experiment {name!r} is in the trash; `{command}` restores it, "
            "or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return experiment


def _build_restore_hint(error: Exception) -> str:
    """Return a hint on how to restore a deleted run or experiment; an empty string for other errors."""
    match = DELETED_PATTERN.search(str(error)) if isinstance(error, MlflowException) else None
    if match is None:
        return ""
    kind = match["kind"].lower()
    option = "--experiment-id" if kind == "experiment" else "--run-id"
    return f"; it is in the trash, `{_build_restore_command(f'{kind}s', option, match['id'])}` restores it"


def _build_restore_command(kind: str, option: str, identifier: str) -> str:
    """Return the command that restores a run or experiment, with the address only for the default store."""
    command = f"mlflow {kind} restore {option} {identifier}"
    if not _is_default_store():  # the user has set the address, which may contain a password
        return command
    return f"MLFLOW_TRACKING_URI={shlex.quote(default_tracking_uri())} {command}"


def _describe_cause(error: Exception, uri: str) -> str:
    """Return the cause of an error in one line, without the address.

    Messages of MLflow, of SQLite and about missing drivers are quoted. For other errors, only the type is
    named, since their messages may contain parts of the address. The same applies to messages of MLflow that
    contain the password in another encoding.
    """
    if isinstance(error, ImportError):
        return f"the driver {error.name} is not installed"
    if isinstance(error, MlflowException):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        line = next((line for line in lines if line.startswith("(sqlite3.")), lines[0] if lines else "")
        line = line.replace(uri, "<MLFLOW_TRACKING_URI>")
        if line and not any(secret in line for secret in find_secrets(uri)):
            return line
    if uri.startswith("sqlite") and isinstance(error, DBAPIError):  # "database or disk is full"
        return f"{type(error).__name__}: {error.orig}"
    return type(error).__name__


RUN_ID = re.compile(r"[0-9a-f]{32}")


def has_default_store() -> bool:
    """Return whether the tracking store is the default SQLite store in `mlruns/`, and exists."""
    return _is_default_store() and _default_database_path().is_file()


def find_deleted_runs(days: float) -> list[str]:
    """Return the ids of runs that were deleted more than `days` days ago."""
    deleted_before_ms = (time.time() - days * 86400) * 1000
    query = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_time < ?"
    return [row[0] for row in _query_default_store(query, deleted_before_ms)]


def purge_deleted_runs(days: float) -> None:
    """Permanently delete runs, experiments and their artifacts that were deleted more than `days` days ago.

    Raises:
        UserError: `mlflow gc` failed.
    """
    uri = default_tracking_uri()
    age = f"{int(days)}d{int(days * 24 % 24)}h"
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    completed = subprocess.run([*command, "--older-than", age], capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        lines = (completed.stderr or completed.stdout).strip().splitlines()
        raise UserError(f"`mlflow gc` failed: {lines[-1] if lines else completed.returncode}")


def find_orphaned_artifacts() -> list[Path]:
    """Return the artifact folders whose run or model is no longer in the store."""
    folder = repository_root() / "mlruns" / "artifacts"
    runs = {row[0] for row in _query_default_store("SELECT run_uuid FROM runs")}
    models = {row[0] for row in _query_default_store("SELECT model_id FROM logged_models")}
    run_folders = [path for path in folder.glob("*") if RUN_ID.fullmatch(path.name) and path.name not in runs]
    model_folders = [path for path in folder.glob("models/m-*") if path.name not in models]
    return sorted(run_folders + model_folders)


def _default_database_path() -> Path:
    return repository_root() / "mlruns" / "mlflow.db"


def _query_default_store(query: str, *values: float) -> list[tuple[str]]:
    """Return the rows of a query to the database of the default store, which is opened read-only.

    Raises:
        UserError: the database cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{_default_database_path().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{_default_database_path()}: cannot be read: {error}") from None
