"""Where studies are kept: the journal in `mlruns/`, or the database that the environment names."""

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
"""Drivers wait for minutes by themselves where an address does not answer."""

TIMEOUT_OPTIONS = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mariadb": "connect_timeout"}
"""By kind of database: what its usual drivers call that."""


ENDED = "Cannot tell a"
ENDED_OUTSIDE = (
    "tune: a trial was ended from outside, such as in the dashboard, while it ran; start the same command "
    "again: it runs the other trials"
)


def open_storage() -> BaseStorage:
    """Open what `TUNE_STORAGE` names, by default the journal.

    Raises UserError where the database does not answer or the journal is not whole; the address, which may
    hold a password, is in no message.
    """
    address = load_settings().tune_storage
    if address is None:
        return open_journal(repository_root() / paths.JOURNAL)
    return _open_database(resolve_sqlite_address(address.get_secret_value()))


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, or start it.

    Raises UserError, with nothing written, where a line of it is torn or no entry of a journal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(path)
    journal.check()
    try:
        return JournalStorage(journal)
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path}: optuna {optuna.__version__} cannot read this journal "
            f"({type(error).__name__}: {error}); move it away to start a new one"
        ) from None


class Journal(JournalFileBackend):
    """Optuna's journal file, to which nothing is added while its last line is torn.

    With a lock that the system lets go of when the process that holds it dies. Optuna's own, a symbolic link
    `<journal>.lock`, stays behind after a kill and stops everybody else for half a minute.
    """

    def __init__(self, path: Path) -> None:
        """Take the journal at `path`, which may not exist yet."""
        super().__init__(str(path))
        self.path = path
        self.lock = FileLock(path.with_name(f"{path.name}.writing"))

    def check(self) -> None:
        """Read every line. Raises UserError where one is no entry of a journal."""
        with self.lock:
            position = 0
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not _is_entry(line):
                        raise _torn(self.path, number, position, at_end=not file.read(1))
                    position += len(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries, all of them or none.

        Raises UserError where the last line is torn: what comes next would be torn with it.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self.lock, self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                content = self.path.read_bytes()
                whole = content.rfind(b"\n") + 1
                raise _torn(self.path, content.count(b"\n") + 1, whole, at_end=True)
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # a full disk
                os.ftruncate(file.fileno(), end)
                raise


@register_translator
def translate_storage_error(error: BaseException) -> UserError | None:
    """Return the error to report when the storage fails during a search, or lacks a study or a trial.

    A study or a trial may be deleted, and a trial ended, in the dashboard at any moment.
    """
    if isinstance(error, UpdateFinishedTrialError):
        return UserError(ENDED_OUTSIDE)
    if isinstance(error, KeyError | ValueError) and _is_missing(error):
        if ENDED in str(error):
            return UserError(ENDED_OUTSIDE)
        return UserError(
            "tune: the study or a trial of it was deleted, such as in the dashboard, while the search ran; "
            "start the same command again: it takes what is left, or starts a new study"
        )
    if isinstance(error, StorageInternalError) or (
        isinstance(error, SQLAlchemyError) and find_raising_library(error, "mlflow", "optuna") == "optuna"
    ):
        address = load_settings().tune_storage
        return _not_working(error, address.get_secret_value() if address else "")
    return None


def _is_missing(error: Exception) -> bool:
    """Whether Optuna raises this for a study or a trial that does not exist."""
    message = str(error.args[0]) if error.args else ""
    frames = list(traceback.walk_tb(error.__traceback__))
    by_optuna = bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith("optuna.")
    return by_optuna and (
        message == NOT_FOUND_MSG or message.startswith(("No trial with", "Cannot tell", "Record does not"))
    )


def _open_database(address: str) -> BaseStorage:
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):  # the message quotes the address
        raise UserError(
            "TUNE_STORAGE: not the address of a database; such as postgresql+psycopg://user:password@host/name"
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    else:
        logger.info("connecting to the database that TUNE_STORAGE names")
    option = TIMEOUT_OPTIONS.get(backend)
    # A trial takes longer than a firewall or a server leaves a silent connection open: ask before each use.
    engine = {"connect_args": {option: CONNECT_SECONDS} if option else {}, "pool_pre_ping": True}
    studies = repository_root() / paths.STUDIES
    studies.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(studies / "storage.lock"):  # two that make the tables at once stumble over each other
            return optuna.storages.get_storage(RDBStorage(address, engine))
    except Exception as error:  # each driver has errors of its own
        raise _not_working(error, address) from None


def _not_working(error: Exception, address: str) -> UserError:
    return UserError(f"the database of the studies (TUNE_STORAGE) does not work: {_said(error, address)}")


def _said(error: Exception, address: str) -> str:
    """Return what went wrong in one line, without the password.

    A driver's own message is the useful part; it is left out where it holds the password in any spelling.
    """
    if isinstance(error, ImportError) and error.name:
        return f"the driver {error.name} is not installed"
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    message = str(getattr(cause, "orig", None) or (error if isinstance(error, RuntimeError) else ""))
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    kind = type(cause or error).__name__
    return (
        kind if not line or any(secret in message for secret in find_secrets(address)) else f"{kind}: {line}"
    )


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and isinstance(entry, dict) and "op_code" in entry


def _torn(path: Path, number: int, position: int, *, at_end: bool) -> UserError:
    if at_end:
        remedy = f"`truncate --size {position} {path}` takes that line away and leaves the whole ones"
    else:
        remedy = "bring back a copy of it, or move it away to start a new one"
    return UserError(f"{path}: line {number} is torn or no entry of a journal; nothing was written; {remedy}")
