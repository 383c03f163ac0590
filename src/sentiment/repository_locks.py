"""Processes that use a repository at present: DVC, stages, and those that hold a lock file."""

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sentiment import paths
from sentiment.errors import UserError

DVC_TEMPORARY = Path(".dvc/tmp")
"""DVC's folder for temporary files: its locks and, in `exps`, the copies of its experiments."""

DVC_LOCK = DVC_TEMPORARY / "lock"
RETRAIN_LOCK = DVC_TEMPORARY / "retrain.lock"
"""Lock file of `sentiment retrain`, which between two stages is no process of DVC."""
LOCKS = (
    str(DVC_LOCK),
    str(RETRAIN_LOCK),
    f"{DVC_TEMPORARY}/exps/**/lock",
    f"{paths.CHECKPOINTS}/*/.lock",
    f"{paths.STUDIES}/*/*.lock",
    ".cache/downloads/*/.lock",
)
"""Lock files of DVC, retrainings, trainings, studies and downloads; the system unlocks them when a process
ends."""


def require_idle(root: Path, *, holds_dvc_lock: bool = False) -> None:
    """Raise UserError if a process uses a repository: it may be writing files that look corrupt or unused.

    Args:
        root: root of the repository.
        holds_dvc_lock: whether the caller itself holds DVC's lock.

    Raises:
        UserError: DVC commands or stages are running. The message lists all of them.
    """
    caller_locks = {root / DVC_LOCK} if holds_dvc_lock else set[Path]()
    processes = [
        *_find_dvc_processes(root / DVC_TEMPORARY),
        *_find_pipeline_processes(root),
        *_find_held_locks(root, caller_locks),
    ]
    if processes:
        raise UserError(
            "\n  ".join(
                [
                    "other processes are using this repository; wait for them to finish and try again:",
                    *processes,
                ]
            )
        )


def read_rwlock_holders(file: Path) -> list[dict[str, Any]]:
    """Return the processes that hold DVC's read-write lock, each with its `pid` and `cmd`.

    The list is empty if the file is missing or corrupt; `require_idle` also finds DVC processes without it.
    """
    try:
        lock = json.loads(file.read_bytes())
        holders = [*lock.get("write", {}).values()]
        holders += [holder for readers in lock.get("read", {}).values() for holder in readers]
        return [{"pid": int(holder["pid"]), "cmd": str(holder["cmd"])} for holder in holders]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _find_dvc_processes(folder: Path) -> Iterator[str]:
    """Yield the running processes that hold a read-write lock in DVC's temporary folder."""
    for file in sorted(folder.rglob("rwlock")):
        alive = {(holder["cmd"], holder["pid"]) for holder in read_rwlock_holders(file) if _is_alive(holder)}
        yield from (f"{command} (process {pid})" for command, pid in sorted(alive))


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether a lock holder is still running, and its pid has not been reused by another program."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's process: assume that it is DVC
        return True
    return holder["cmd"] in " ".join(command) or _is_pipeline_command(command)


def _find_pipeline_processes(root: Path) -> Iterator[str]:
    """Yield the running DVC commands and stages in `root`, except this process and its parents."""
    excluded = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in excluded:
            continue
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            command = process.cmdline()
            if _is_pipeline_command(command) and Path(process.cwd()).is_relative_to(root):
                yield f"{' '.join(command)} (process {process.pid})"


def _is_pipeline_command(command: list[str]) -> bool:
    """Return whether a command line runs DVC or a stage."""
    programs = {Path(part).name for part in command[:2]}
    modules = {argument for option, argument in itertools.pairwise(command) if option == "-m"}
    return "dvc" in programs | modules or any(module.startswith("stages.") for module in modules)


def _find_held_locks(root: Path, excluded: set[Path]) -> Iterator[str]:
    """Yield a description of each lock file in LOCKS that a process holds, without the excluded files."""
    for path in sorted({path for pattern in LOCKS for path in root.glob(pattern)} - excluded):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield f"the process that holds {path.relative_to(root)}"
        else:
            lock.release()
