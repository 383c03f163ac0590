"""What a local MLflow store keeps of runs that were deleted, and of runs that it no longer knows."""

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

logger = logging.getLogger(__name__)


os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # mlflow warns at length where git is missing
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 7 are four minutes of silence
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for three small files
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may hold a password


for name in ("alembic", "mlflow"):  # a fresh store tells of each migration
    logging.getLogger(name).setLevel(logging.WARNING)
# Of a database that fails it shows the traceback; what it raises then is told in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)
"""What MLflow raises when its store fails, of its own and of what a server or a database is reached by."""


DELETED = re.compile(r"The (?P<kind>[Ee]xperiment|[Rr]un) '?(?P<id>\w+)'? must be in the 'active' state")
"""What MLflow says of a run or an experiment that was deleted meanwhile."""


@dataclass(frozen=True)
class Store:
    """A tracking store that answers, and the experiment that runs go to."""

    client: MlflowClient
    experiment_id: str


def default_tracking_uri() -> str:
    """Return the address of the sqlite store in `mlruns/`, absolute where its path can be in one."""
    return build_sqlite_address(repository_root() / "mlruns" / "mlflow.db")


def tracking_uri(settings: Settings) -> str:
    """Return the tracking address; a relative sqlite file is meant from the repository's root."""
    if settings.mlflow_tracking_uri is None:
        return default_tracking_uri()
    return resolve_sqlite_address(settings.mlflow_tracking_uri.get_secret_value())


def open_store() -> Store:
    """Connect, and make the experiment if it is not there.

    Raises UserError, without the address (it may hold a password), where the store does not answer.
    """
    settings = load_settings()
    uri = tracking_uri(settings)
    is_local = uri.startswith("sqlite")
    if not is_local and settings.mlflow_tracking_uri is not None:
        logger.info("connecting to the MLflow store that MLFLOW_TRACKING_URI names")
    try:
        if is_local and (database := make_url(uri).database):
            _make_tables(uri, Path(database))
        return _connected(uri, settings.mlflow_experiment_name, is_local)
    except UserError:
        raise
    except Exception as error:  # each kind of store has errors of its own
        raise UserError(not_working(error)) from None


def _is_default() -> bool:
    """Whether the store is the one in `mlruns/`. Once open, MLflow sets the variable for that one too."""
    return tracking_uri(load_settings()) == default_tracking_uri()


@register_translator
def translate_store_error(error: BaseException) -> UserError | None:
    """Return the error to report when the store fails while a command runs."""
    if not isinstance(error, STORE_ERRORS) or find_raising_library(error, "mlflow", "optuna") == "optuna":
        return None
    return UserError(f"{not_working(error)}; once it works, start the same command again")


def not_working(error: Exception) -> str:
    """Say in one line that the store does not work, and why, without the address."""
    why = _said(error, tracking_uri(load_settings()))
    named = repository_root() / "mlruns" if _is_default() else "MLFLOW_TRACKING_URI"
    return f"the MLflow store ({named}) does not work: {why}{_restores(error)}"


def _make_tables(uri: str, path: Path) -> None:
    """Make a new sqlite store, whole or not at all.

    MLflow takes seconds for its tables. A process killed meanwhile would leave a file that no other can use,
    and two that make them at once stumble over each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.making"):
        head, found, options = uri.rpartition(f"/{path.name}")
        if found and not path.exists():  # an encoded name is not found: MLflow makes the tables in place
            with atomic_write(path) as temporary:
                MlflowClient(f"{head}/{temporary.name}{options}").search_experiments(max_results=1)


def _connected(uri: str, name: str, is_local: bool) -> Store:
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    found = _active_experiment(client, name)
    if found is not None:
        return Store(client, found)
    # A local client keeps artifacts beside the database; a server decides for itself.
    location = (repository_root() / "mlruns" / "artifacts").as_uri() if is_local else None
    try:
        return Store(client, client.create_experiment(name, location))
    except MlflowException:
        found = _active_experiment(client, name)  # made at this moment by another process
        if found is None:
            raise
        return Store(client, found)


def _active_experiment(client: MlflowClient, name: str) -> str | None:
    """Return the id of the experiment, None where there is none.

    Raises:
        UserError: it was deleted, which keeps its name taken.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} is in the trash; "
            f"`{_restoring('experiments', '--experiment-id', experiment.experiment_id)}` restores it, "
            "or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return str(experiment.experiment_id)


def _restores(error: Exception) -> str:
    """Return how to restore what MLflow says is deleted; nothing where it says something else."""
    found = DELETED.search(str(error)) if isinstance(error, MlflowException) else None
    if found is None:
        return ""
    kind = found["kind"].lower()
    option = "--experiment-id" if kind == "experiment" else "--run-id"
    return f"; it is in the trash, `{_restoring(f'{kind}s', option, found['id'])}` restores it"


def _restoring(kind: str, option: str, identifier: str) -> str:
    """Return the command that restores something, for the default store with its address."""
    command = f"mlflow {kind} restore {option} {identifier}"
    if not _is_default():  # the address may hold a password, and the user has it set
        return command
    return f"MLFLOW_TRACKING_URI={shlex.quote(default_tracking_uri())} {command}"


def _said(error: Exception, uri: str) -> str:
    """Return what went wrong in one line, without the address.

    Of errors other than MLflow's own, sqlite's and missing drivers only the kind: they may quote parts of the
    address.
    So may MLflow's where a library below it has spelt the password in another way.
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
