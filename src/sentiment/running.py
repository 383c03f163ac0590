"""What runs in this repository at the moment: stages, searches, DVC commands."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from sentiment import paths
from sentiment.errors import UserError

DVC_TEMPORARY = Path(".dvc/tmp")
"""Locks of DVC in this repository and, below `exps`, in its experiments' copies."""


def require_nothing_running(root: Path) -> None:
    """Raise UserError that names what runs, or the lock that is held."""
    running = [*_dvc_processes(root / DVC_TEMPORARY), *_held_locks(root)]
    if running:
        raise UserError("\n  ".join(["something is running here; try again when it has ended:", *running]))


def _dvc_processes(folder: Path) -> Iterator[str]:
    """Yield what DVC's read-write locks name, without processes that were killed."""
    for file in sorted(folder.rglob("rwlock")):
        try:
            lock = json.loads(file.read_text(encoding="utf-8"))
            holders = [*lock.get("write", {}).values()]
            holders += [holder for readers in lock.get("read", {}).values() for holder in readers]
            found = {(int(holder["pid"]), str(holder["cmd"])) for holder in holders if holder}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{file}: corrupt, so nobody knows what runs; where nothing does, remove it"
            ) from None
        yield from (f"{command} (process {pid})" for pid, command in sorted(found) if psutil.pid_exists(pid))


def _held_locks(root: Path) -> Iterator[str]:
    """Yield the lock files that a process holds; the system releases them when it dies."""
    patterns = (
        f"{DVC_TEMPORARY}/lock",
        f"{DVC_TEMPORARY}/exps/**/lock",
        f"{paths.CHECKPOINTS}/*/.lock",
        f"{paths.STUDIES}/*/*.lock",
        ".cache/downloads/*/.lock",
    )
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield f"the holder of {path.relative_to(root)}"
        else:
            lock.release()
