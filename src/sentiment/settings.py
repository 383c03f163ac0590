"""Settings of a machine or team, from environment variables or `.env`. None of them changes a result."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import parse_qs, unquote

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sentiment.errors import UserError

ROOT_FILES = ("params.yaml", "dvc.yaml")
"""Files that mark the root of a repository of this project, also of a git worktree or a copy."""


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class LogSettings(BaseSettings):
    """Log level, which every command reads, even one that needs no other setting."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True)

    log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = "INFO"
    """Lowest level of the log records that are shown."""


class Settings(LogSettings):
    """Settings of this machine or team: services, folders and number of processes."""

    mlflow_tracking_uri: SecretStr | None = None
    """Tracking server or database; by default the sqlite store in `mlruns/`. It may contain a password."""
    mlflow_experiment_name: str = Field(default="sentiment", min_length=1)
    """Name of the MLflow experiment to which runs are logged."""
    download_cache: Path | None = None
    """Folder for downloaded archives, relative to the root; by default `.cache/downloads`."""
    checkpoint_minutes: PositiveFloat = 2
    """Minutes between two checkpoints of a training run, which also writes one after every epoch."""
    tune_storage: SecretStr | None = None
    """Database of the Optuna studies; by default the journal in `mlruns/`. It may contain a password."""
    tune_workers: PositiveInt | None = None
    """Number of processes that run trials in parallel, at most `tune.max_parallel`; by default as many as
    have `tune.threads` cores each, or one on a GPU."""
    data_workers: PositiveInt | None = None
    """Maximum number of processes that tokenize reviews; by default the number of cores. Each one gets at
    least 25,000 reviews."""
    ray_address: str | None = None
    """Head node of a Ray cluster that runs trials, ranks and shards of reviews: HOST:PORT, or `auto` on one
    of its nodes; by default everything runs on this machine."""
    ray_checkpoints: SecretStr | None = None
    """Storage that all nodes can write to, as an address of fsspec: a trial whose node died resumes there. By
    default it starts again. It may contain a password."""
    ray_task_memory_gb: Annotated[float, Field(ge=0.001, le=1e6)] | None = None
    """Memory in gigabytes (10^9 bytes) that each trial and each rank declares to Ray; by default none."""
    retrain_notify_url: SecretStr | None = None
    """Address to which `sentiment retrain` posts its outcome as JSON, such as a chat's webhook, which may
    contain a secret; by default it posts nothing."""


def repository_root() -> Path:
    """Return the root of the user's repository: the nearest parent folder that contains ROOT_FILES.

    Outside any repository this is the working directory. DVC runs temporary and queued experiments in a copy
    of the repository and sets DVC_ROOT to the original: files that must outlive the copy belong there.
    """
    if dvc_root := os.environ.get("DVC_ROOT"):
        return Path(dvc_root).resolve()
    working_directory = _get_working_directory()
    return _find_nearest_root(working_directory) or working_directory


def enter_repository() -> None:
    """Change the working directory to the root of the repository, so that commands work in subfolders.

    Under `dvc exp run --temp` this is the root of the copy, because commands must read its files. Outside any
    repository it is the folder that DVC_ROOT names.

    Raises:
        UserError: the working directory is outside any repository, and DVC_ROOT is not set.
    """
    working_directory = _get_working_directory()
    root = _find_nearest_root(working_directory)
    if root is None and (dvc_root := os.environ.get("DVC_ROOT")):
        root = Path(dvc_root)
    if root is None:
        folders = (working_directory, *working_directory.parents)
        missing = [name for name in ROOT_FILES if not any((folder / name).is_file() for folder in folders)]
        raise UserError(
            f"{working_directory}: not inside a repository of this project: no "
            f"{' and no '.join(missing or ROOT_FILES)} here or in a folder above"
            f"{'' if missing else ', side by side'}; cd to the repository and try again"
        )
    os.chdir(root)


def _get_working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder no longer exists; cd to the repository and try again") from None


def _find_nearest_root(start: Path) -> Path | None:
    """Return `start` or its nearest parent folder that contains all of ROOT_FILES, or None."""
    for folder in (start, *start.parents):
        if all((folder / name).is_file() for name in ROOT_FILES):
            return folder
    return None


def resolve_sqlite_address(address: str) -> str:
    """Return an address in which a relative path of a sqlite file is made relative to the repository's root.

    Libraries would resolve it from the working directory, which under `dvc exp run --temp` is a copy that DVC
    deletes. Options after a `?` are retained.

    Raises:
        UserError: the root's path cannot be part of an address.
    """
    scheme, separator, path_and_options = address.partition(":///")
    path, question_mark, options = path_and_options.partition("?")
    is_relative = (
        path and path != ":memory:" and not path.startswith("file:") and not Path(path).is_absolute()
    )
    if separator and is_relative and scheme.startswith("sqlite"):
        return f"{scheme}:///{_format_sqlite_path(repository_root(), path)}{question_mark}{options}"
    return address


def build_sqlite_address(path: Path) -> str:
    """Return the address of a sqlite file, absolute unless the path has characters with a special meaning.

    Raises:
        UserError: neither the absolute nor the relative path can be part of an address.
    """
    return f"sqlite:///{_format_sqlite_path(path.parent, path.name)}"


def _format_sqlite_path(folder: Path, name: str) -> str:
    """Return the path of a file in the form that a sqlite address needs.

    In an address a `?` starts the options, and `%2F` is a slash. SQLAlchemy decodes `%3F` and `%25`, but
    MLflow creates the folder of the encoded path. A path relative to the working directory does not contain
    the names of its parent folders, so it is used where the absolute path has such characters.
    """
    if not _has_special_characters(str(folder)):
        return str(folder / name)
    relative = os.path.relpath(folder, Path.cwd())
    if _has_special_characters(relative):
        raise UserError(
            f"{folder}: the address of a sqlite database cannot contain a path with '?' or '%'; rename the "
            "folder, or cd to it and try again: the address then has a relative path without '?' and '%'"
        )
    return str(Path(relative) / name)


def _has_special_characters(path: str) -> bool:
    return "?" in path or "%" in path


def find_secrets(address: str) -> set[str]:
    """Return the strings that no message may contain: the address, and its password, encoded and decoded."""
    before_query, _, query = address.partition("?")
    secrets = {address, address.rstrip("/"), *parse_qs(query).get("password", [])}
    secrets |= {pair.partition("=")[2] for pair in query.split("&") if pair.startswith("password=")}
    for part in (address, before_query):  # both the password and the query may contain a "?" or an "@"
        user_and_password, at, _ = part.rpartition("@")
        password = user_and_password.partition("://")[2].partition(":")[2] if at else ""
        secrets |= {password, unquote(password)}
    return {secret for secret in secrets if secret}


def load_settings() -> Settings:
    """Load the settings from environment variables, or from `.env` in the repository's root if not set there.

    Raises:
        UserError: a value is invalid. The message names all invalid variables, without their values.
    """
    return _load_from_environment(Settings)


def load_log_level() -> LogLevel:
    """Return the setting LOG_LEVEL, from the environment or `.env`, without validating other settings.

    Raises:
        UserError: LOG_LEVEL is not the name of a level.
    """
    return _load_from_environment(LogSettings).log_level


_environment_lock = threading.Lock()
"""Held while the environment is read as a whole or changed: a change by another thread fails a read."""

SettingsType = TypeVar("SettingsType", bound=LogSettings)


def _load_from_environment(settings: type[SettingsType]) -> SettingsType:
    file = repository_root() / ".env"
    try:
        with _environment_lock:
            return settings(_env_file=file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except ValidationError as error:
        problems = [f"  {str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()]
        raise UserError("\n".join(["invalid environment variables:", *problems])) from None


@contextmanager
def set_environment(**values: str) -> Iterator[None]:
    """Set environment variables in a `with` block; processes that it starts inherit them."""
    with _environment_lock:
        previous = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
    try:
        yield
    finally:
        with _environment_lock:
            for name, value in previous.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
