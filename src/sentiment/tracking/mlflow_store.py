"""The MLflow tracking store: opened with its experiment, its errors as messages, what it can delete."""

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

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # else mlflow prints a long warning if git is missing
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default, 7, blocks for four minutes
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for three small files
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may contain a password

for name in ("alembic", "mlflow"):  # they log each migration of a new store
    logging.getLogger(name).setLevel(logging.WARNING)
# It logs a traceback for each database error, which `translate_store_error` reports in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)
"""Raised by MLflow if its store fails: its own exceptions, and those of the HTTP or database client."""

DELETED = re.compile(r"The (?P<kind>[Ee]xperiment|[Rr]un) '?(?P<id>\w+)'? must be in the 'active' state")
"""MLflow's message about a run or an experiment that was deleted in the meantime."""


@dataclass(frozen=True)
class Store:
    """A tracking store that answers, and the experiment that runs are logged to."""

    client: MlflowClient
    experiment_id: str


def default_tracking_uri() -> str:
    """Return the address of the sqlite store in `mlruns/`, absolute if possible (`build_sqlite_address`)."""
    return build_sqlite_address(repository_root() / "mlruns" / "mlflow.db")


def tracking_uri(settings: Settings) -> str:
    """Return the tracking address; a relative sqlite file is resolved against the repository's root."""
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
    except Exception as error:  # each kind of store raises its own exceptions
        raise UserError(describe_store_error(error)) from None


def _is_default() -> bool:
    """Return whether the store is the one in `mlruns/`. MLflow itself sets the variable for that one too."""
    return tracking_uri(load_settings()) == default_tracking_uri()


@register_translator
def translate_store_error(error: BaseException) -> UserError | None:
    """Return the error to report when the store fails while a command runs."""
    if not isinstance(error, STORE_ERRORS) or find_raising_library(error, "mlflow", "optuna") == "optuna":
        return None
    return UserError(
        f"{describe_store_error(error)}; once it is available, run the same command again to resume"
    )


def describe_store_error(error: Exception) -> str:
    """Return a one-line message with the cause, without the store's address."""
    cause = _describe_cause(error, tracking_uri(load_settings()))
    location = repository_root() / "mlruns" if _is_default() else "MLFLOW_TRACKING_URI"
    if hint := _restore_hint(error):
        return f"the MLflow tracking store ({location}) rejected the request: {cause}{hint}"
    return f"Cannot reach the MLflow tracking store ({location}): {cause}"


def _create_tables(uri: str, path: Path) -> None:
    """Create a sqlite store atomically.

    MLflow takes seconds to create its tables. A process killed meanwhile would leave an unusable file, and
    two processes that create them at once conflict.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.making"):
        head, found, options = uri.rpartition(f"/{path.name}")
        # A name that is percent-encoded in the address is not found: MLflow creates those tables in place.
        if found and not path.exists():
            with atomic_write(path) as temporary:
                MlflowClient(f"{head}/{temporary.name}{options}").search_experiments(max_results=1)


def _connect(uri: str, name: str, is_local: bool) -> Store:
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    found = _find_active_experiment(client, name)
    if found is not None:
        for tag, value in experiment_tags().items():
            if tag not in found.tags:  # one that the user has edited stays
                client.set_experiment_tag(found.experiment_id, tag, value)
        return Store(client, str(found.experiment_id))
    # A local client stores artifacts beside the database; a server chooses the location itself.
    location = (repository_root() / "mlruns" / "artifacts").as_uri() if is_local else None
    try:
        return Store(client, client.create_experiment(name, location, experiment_tags()))
    except MlflowException:
        found = _find_active_experiment(client, name)  # another process has just created it
        if found is None:
            raise
        return Store(client, str(found.experiment_id))


def _find_active_experiment(client: MlflowClient, name: str) -> Experiment | None:
    """Return the experiment; None if there is none.

    Raises:
        UserError: it was deleted; its name stays reserved.
    """
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} is in the trash; "
            f"`{_restore_command('experiments', '--experiment-id', experiment.experiment_id)}` restores it, "
            "or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return experiment


def _restore_hint(error: Exception) -> str:
    """Return how to restore the run or experiment that was deleted; an empty string for other errors."""
    found = DELETED.search(str(error)) if isinstance(error, MlflowException) else None
    if found is None:
        return ""
    kind = found["kind"].lower()
    option = "--experiment-id" if kind == "experiment" else "--run-id"
    return f"; it is in the trash, `{_restore_command(f'{kind}s', option, found['id'])}` restores it"


def _restore_command(kind: str, option: str, identifier: str) -> str:
    """Return the command that restores a run or experiment; for the default store, with its address."""
    command = f"mlflow {kind} restore {option} {identifier}"
    if not _is_default():  # the user has set the address, which may contain a password
        return command
    return f"MLFLOW_TRACKING_URI={shlex.quote(default_tracking_uri())} {command}"


def _describe_cause(error: Exception, uri: str) -> str:
    """Return the cause of an error in one line, without the address.

    MLflow's own errors, those of sqlite and missing drivers are quoted. Of others only the type is named,
    since their messages may quote parts of the address; so is one of MLflow's in which a library has spelt
    the password in another way.
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
    """Return whether runs are logged to the sqlite store in `mlruns/`, and it exists."""
    return _is_default() and _default_database().is_file()


def find_deleted_runs(days: float) -> list[str]:
    """Return the ids of runs that were deleted more than this many days ago."""
    before = (time.time() - days * 86400) * 1000
    query = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_time < ?"
    return [row[0] for row in _query(query, before)]


def purge_deleted_runs(days: float) -> None:
    """Permanently delete those runs, experiments deleted as long ago, and their artifacts."""
    uri = default_tracking_uri()
    age = f"{int(days)}d{int(days * 24 % 24)}h"
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    done = subprocess.run([*command, "--older-than", age], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"`mlflow gc` failed: {lines[-1] if lines else done.returncode}")


def find_orphaned_artifacts() -> list[Path]:
    """Return the artifact folders whose run or model is no longer in the store."""
    folder = repository_root() / "mlruns" / "artifacts"
    runs = {row[0] for row in _query("SELECT run_uuid FROM runs")}
    models = {row[0] for row in _query("SELECT model_id FROM logged_models")}
    of_runs = [path for path in folder.glob("*") if RUN_ID.fullmatch(path.name) and path.name not in runs]
    of_models = [path for path in folder.glob("models/m-*") if path.name not in models]
    return sorted(of_runs + of_models)


def _default_database() -> Path:
    return repository_root() / "mlruns" / "mlflow.db"


def _query(query: str, *values: float) -> list[tuple[str]]:
    try:
        with closing(sqlite3.connect(f"{_default_database().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{_default_database()}: cannot be read: {error}") from None
