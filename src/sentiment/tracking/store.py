"""Where runs are kept: the sqlite store in `mlruns/`, or whatever the environment names."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # mlflow warns at length where git is missing
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 7 are four minutes of silence
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for three small files
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may hold a password

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sentiment.errors import UserError
from sentiment.outputs import replacing
from sentiment.progress import say
from sentiment.settings import Settings, below_root, load_settings, repository_root, secrets_of

for name in ("alembic", "mlflow"):  # a fresh store tells of each migration
    logging.getLogger(name).setLevel(logging.WARNING)
# Of a database that fails it shows the traceback; what it raises then is told in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)
"""What MLflow raises when its store fails, of its own and of what a server or a database is reached by."""


@dataclass(frozen=True)
class Store:
    """A tracking store that answers, and the experiment that runs go to."""

    client: MlflowClient
    experiment_id: str


def default_tracking_uri() -> str:
    """Return the address of the sqlite store in `mlruns/`, absolute, so that it means the same everywhere."""
    return f"sqlite:///{repository_root() / 'mlruns' / 'mlflow.db'}"


def tracking_uri(settings: Settings) -> str:
    """Return the tracking address; a relative sqlite file is meant from the repository's root."""
    if settings.mlflow_tracking_uri is None:
        return default_tracking_uri()
    return below_root(settings.mlflow_tracking_uri.get_secret_value())


def open_store() -> Store:
    """Connect, and make the experiment if it is not there.

    Raises UserError, without the address (it may hold a password), where the store does not answer.
    """
    settings = load_settings()
    uri = tracking_uri(settings)
    is_local = uri.startswith("sqlite")
    path = Path(uri.partition(":///")[2])
    if is_local:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif settings.mlflow_tracking_uri is not None:
        say("connecting to the MLflow store that MLFLOW_TRACKING_URI names")
    try:
        if is_local and path.name:
            _make_tables(uri, path)
        return _connected(uri, settings.mlflow_experiment_name, is_local)
    except Exception as error:  # each kind of store has errors of its own
        raise UserError(not_working(error)) from None


@contextmanager
def tracking_errors() -> Iterator[None]:
    """Turn what MLflow says when its store fails in the middle of a stage into a UserError."""
    try:
        yield
    except STORE_ERRORS as error:
        raise UserError(f"{not_working(error)}; once it works, start the same command again") from None


def not_working(error: Exception) -> str:
    """Say in one line that the store does not work, and why, without the address."""
    why = _said(error, tracking_uri(load_settings()))
    return f"the MLflow store (MLFLOW_TRACKING_URI) does not work: {why}"


def _make_tables(uri: str, path: Path) -> None:
    """Make a new sqlite store, whole or not at all.

    MLflow takes seconds for its tables. A process killed meanwhile would leave a file that no other can use,
    and two that make them at once stumble over each other.
    """
    with FileLock(f"{path}.making"):
        if not path.exists():
            with replacing(path) as temporary:
                MlflowClient(uri.removesuffix(str(path)) + str(temporary)).search_experiments(max_results=1)


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
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    return str(experiment.experiment_id)


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
        if line and not any(secret in line for secret in secrets_of(uri)):
            return line
    if uri.startswith("sqlite") and isinstance(error, DBAPIError):  # "database or disk is full"
        return f"{type(error).__name__}: {error.orig}"
    return type(error).__name__
