"""Maintenance of the default tracking store: backup, upgrade to a newer MLflow, a moved repository.

All of this concerns the SQLite database in `mlruns/`. Stores that MLFLOW_TRACKING_URI names are maintained
where they run.
"""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from sentiment.errors import UserError
from sentiment.files import atomic_write, require_file_target, temporary_folder
from sentiment.repository_locks import require_idle
from sentiment.settings import build_sqlite_address, repository_root

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns with absolute addresses of artifacts."""

FOLDER = "/mlruns/artifacts"
"""End of the address of the artifacts of a repository."""


def back_up(target: Path) -> None:
    """Copy the database to a file, also while other processes write to it.

    Raises:
        UserError: there is no database, it cannot be read, or the target is a folder or the database itself.
    """
    database = _require_database()
    require_file_target(target)
    if target.exists() and target.samefile(database):
        raise UserError(f"{target}: is the database itself; name another file for its backup")
    with atomic_write(target) as temporary:
        _copy(database, temporary)


def upgrade() -> Path | None:
    """Upgrade the database to the schema of the installed MLflow.

    A copy is upgraded and replaces the database, so that an interrupted upgrade changes nothing. The database
    from before stays beside it.

    Returns:
        Path of the database from before; None if the schema was up to date, or there is no database.

    Raises:
        UserError: another process uses the repository, or the upgrade failed.
    """
    database = _find_database()
    if not database.is_file():
        return None
    require_idle(repository_root())
    with temporary_folder(database.with_name(".mlflow.db.upgrade")) as folder:
        copy = folder / database.name
        _copy(database, copy)
        revision = _read_revision(copy)
        _run_upgrade(copy)
        if _read_revision(copy) == revision:
            return None
        backup = database.with_name(f"{database.name}.{revision}")
        _copy(database, backup)
        copy.replace(database)
    return backup


def move() -> int:
    """Let the addresses of artifacts point to this repository's folder, after it was moved or copied.

    Returns:
        Number of addresses that changed.

    Raises:
        UserError: there is no database, or another process uses the repository.
    """
    database = _require_database()
    require_idle(repository_root())
    new = (repository_root() / "mlruns" / "artifacts").as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
            (f"%{FOLDER}",),
        )
        former = [location for (location,) in rows if location != new]
        return sum(
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, length(?) + 1) "  # noqa: S608, constants
                f"WHERE {column} = ? OR substr({column}, 1, length(?) + 1) = ? || '/'",
                (new, old, old, old, old),
            ).rowcount
            for old in former
            for table, column in LOCATIONS
        )


def _find_database() -> Path:
    return repository_root() / "mlruns" / "mlflow.db"


def _require_database() -> Path:
    database = _find_database()
    if not database.is_file():
        raise UserError(
            f"{database}: there is no database; what MLFLOW_TRACKING_URI names is maintained where it runs"
        )
    return database


def _copy(database: Path, target: Path) -> None:
    """Copy a database with SQLite's backup, which is consistent while others write."""
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise UserError(f"{database}: cannot be copied: {error}") from None


def _read_revision(database: Path) -> str:
    try:
        with closing(sqlite3.connect(database)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise UserError(f"{_find_database()}: not a database of MLflow: {error}") from None
    return str(revision)


def _run_upgrade(database: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", build_sqlite_address(database)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        lines = (completed.stderr or completed.stdout).strip().splitlines()
        raise UserError(
            f"`mlflow db upgrade` failed: {lines[-1] if lines else completed.returncode}; the database is "
            "unchanged"
        )
