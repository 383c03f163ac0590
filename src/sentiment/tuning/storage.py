"""Optuna storage of the studies: a journal file in `mlruns/`, or the database in `TUNE_STORAGE`."""

import json
import logging
import os
import traceback
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import NOT_FOUND_MSG
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from sentiment import paths
from sentiment.errors import UserError, find_raising_library, register_translator
from sentiment.settings import find_secrets, load_settings, repository_root, resolve_sqlite_address

logger = logging.getLogger(__name__)

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONNECT_SECONDS = 10
"""Time limit for connecting to a database. By default, drivers wait minutes for a server that is down."""

TIMEOUT_OPTIONS = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mariadb": "connect_timeout"}
"""Name of the driver option that sets the time limit, by database backend."""

TRIAL_ENDED = "Cannot tell a"
"""Start of Optuna's error message when `Study.tell` is called for a trial that has already ended."""

TRIAL_ENDED_ERROR = (
    "tune: a running trial was ended by another program, for example in the dashboard; start the same "
    "command again to run the other trials"
)


def open_storage() -> BaseStorage:
    """Open the database in the environment variable `TUNE_STORAGE`; the journal file if it is not set.

    Raises:
        UserError: the database cannot be opened, or the journal is corrupt. The message does not contain the
            address, which may contain a password.
    """
    address = load_settings().tune_storage
    if address is None:
        return open_journal(repository_root() / paths.JOURNAL)
    return _open_database(resolve_sqlite_address(address.get_secret_value()))


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file; create it if it does not exist.

    Raises:
        UserError: a line is truncated or corrupt, or Optuna cannot read it. The file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(path)
    journal.validate()
    try:
        return JournalStorage(journal)
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path}: optuna {optuna.__version__} cannot read this journal "
            f"({type(error).__name__}: {error}); move it away to start a new one"
        ) from None


class Journal(JournalFileBackend):
    """Journal file of Optuna that is not appended to if its last line is truncated.

    Its lock is released by the operating system when the process that holds it dies. Optuna's own lock, a
    symbolic link `<journal>.lock`, remains after a kill and blocks all other processes for half a minute.
    """

    def __init__(self, path: Path) -> None:
        """Use the journal at `path`, which need not exist yet."""
        super().__init__(str(path))
        self.path = path
        self.lock = FileLock(path.with_name(f"{path.name}.writing"))

    def validate(self) -> None:
        """Check that every line is a complete journal entry.

        Raises:
            UserError: a line is truncated or corrupt.
        """
        with self.lock:
            position = 0
            with self.path.open("rb") as file:
                for line_number, line in enumerate(file, start=1):
                    if not _is_journal_entry(line):
                        is_last = not file.read(1)
                        raise _build_journal_error(self.path, line_number, position, is_last=is_last)
                    position += len(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append all entries, or none if writing fails.

        Raises:
            UserError: the last line is truncated, so the first new line would be corrupt as well.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self.lock, self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                content = self.path.read_bytes()
                end_of_complete_lines = content.rfind(b"\n") + 1
                raise _build_journal_error(
                    self.path, content.count(b"\n") + 1, end_of_complete_lines, is_last=True
                )
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # a full disk
                os.ftruncate(file.fileno(), end)
                raise


@register_translator
def translate_storage_error(error: BaseException) -> UserError | None:
    """Translate an error of the storage into an error message; return None for other errors.

    At any moment, the user may delete a study or a trial, or end a trial, in the dashboard.
    """
    if isinstance(error, UpdateFinishedTrialError):
        return UserError(TRIAL_ENDED_ERROR)
    if isinstance(error, KeyError | ValueError) and _is_missing_or_ended(error):
        if TRIAL_ENDED in str(error):
            return UserError(TRIAL_ENDED_ERROR)
        return UserError(
            "tune: the study or one of its trials was deleted while the search ran, for example in the "
            "dashboard; start the same command again to resume with the remaining trials or a new study"
        )
    if isinstance(error, StorageInternalError) or (
        isinstance(error, SQLAlchemyError) and find_raising_library(error, "mlflow", "optuna") == "optuna"
    ):
        address = load_settings().tune_storage
        return _build_storage_error(error, address.get_secret_value() if address else "")
    return None


def _is_missing_or_ended(error: Exception) -> bool:
    """Return whether Optuna raised the error since a study or a trial does not exist or has already ended."""
    message = str(error.args[0]) if error.args else ""
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_by_optuna = bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith("optuna.")
    return raised_by_optuna and (
        message == NOT_FOUND_MSG or message.startswith(("No trial with", "Cannot tell", "Record does not"))
    )


def _open_database(address: str) -> BaseStorage:
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):  # its message contains the address, which may contain a password
        raise UserError(
            "TUNE_STORAGE: not the address of a database; example: postgresql+psycopg://user:password@host/name"
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    else:
        logger.info("connecting to the database in TUNE_STORAGE")
    option = TIMEOUT_OPTIONS.get(backend)
    # A trial takes longer than firewalls and servers keep an idle connection open: test it before each use.
    engine_options = {"connect_args": {option: CONNECT_SECONDS} if option else {}, "pool_pre_ping": True}
    studies = repository_root() / paths.STUDIES
    studies.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(studies / "storage.lock"):  # two processes that create the tables at once fail
            return optuna.storages.get_storage(RDBStorage(address, engine_options))
    except Exception as error:  # each driver raises its own exceptions
        raise _build_storage_error(error, address) from None


def _build_storage_error(error: Exception, address: str) -> UserError:
    return UserError(f"cannot access Optuna's storage (TUNE_STORAGE): {_describe_error(error, address)}")


def _describe_error(error: Exception, address: str) -> str:
    """Return a one-line description of an error without the password.

    The description includes the message of the database driver, unless it contains the password in any
    encoding.
    """
    if isinstance(error, ImportError) and error.name:
        return f"the driver {error.name} is not installed"
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    message = str(getattr(cause, "orig", None) or (error if isinstance(error, RuntimeError) else ""))
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    type_name = type(cause or error).__name__
    if not line or any(secret in message for secret in find_secrets(address)):
        return type_name
    return f"{type_name}: {line}"


def _is_journal_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and isinstance(entry, dict) and "op_code" in entry


def _build_journal_error(path: Path, line_number: int, position: int, *, is_last: bool) -> UserError:
    """Build the error for a corrupt line that starts at byte `position`, with a command that removes it."""
    if is_last:
        remedy = f"`truncate --size {position} {path}` removes this line and leaves the complete ones"
    else:
        remedy = "restore a copy of it, or move it away to start a new one"
    return UserError(f"{path}: line {line_number} is truncated or corrupt; nothing was written; {remedy}")
