"""What works in this repository at the moment: stages, searches, DVC commands."""

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
"""Locks of DVC in this repository and, below `exps`, in its experiments' copies."""

DVC_LOCK = DVC_TEMPORARY / "lock"
LOCKS = (
    str(DVC_LOCK),
    f"{DVC_TEMPORARY}/exps/**/lock",
    f"{paths.CHECKPOINTS}/*/.lock",
    f"{paths.STUDIES}/*/*.lock",
    ".cache/downloads/*/.lock",
)
"""Files that DVC, trainings, searches and downloads lock; the system releases them when the process dies."""


def require_idle(root: Path, *, holds_dvc_lock: bool = False) -> None:
    """Raise UserError that names what works in a repository: it may be writing what looks damaged or unused.

    Args:
        root: Of the repository.
        holds_dvc_lock: Whether the caller itself holds DVC's lock.
    """
    own = {root / DVC_LOCK} if holds_dvc_lock else set[Path]()
    found = [*_dvc_holders(root / DVC_TEMPORARY), *_processes_at(root), *_held_locks(root, own)]
    if found:
        raise UserError("\n  ".join(["something is running here; try again when it has ended:", *found]))


def rwlock_holders(file: Path) -> list[dict[str, Any]]:
    """Return the processes, as `pid` and `cmd`, that DVC's read-write lock names.

    None where it is missing or corrupt: DVC's processes are found without it too.
    """
    try:
        lock = json.loads(file.read_bytes())
        found = [*lock.get("write", {}).values()]
        found += [holder for readers in lock.get("read", {}).values() for holder in readers]
        return [{"pid": int(holder["pid"]), "cmd": str(holder["cmd"])} for holder in found]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _dvc_holders(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("rwlock")):
        alive = {(holder["cmd"], holder["pid"]) for holder in rwlock_holders(file) if _is_alive(holder)}
        yield from (f"{command} (process {pid})" for command, pid in sorted(alive))


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether an entry's process runs: the number alone may by now be another process's."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: better to refuse
        return True
    return holder["cmd"] in " ".join(command) or _works_on_the_pipeline(command)


def _processes_at(root: Path) -> Iterator[str]:
    """Yield DVC commands and stages whose working directory is the root; not this process and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(psutil.Error, OSError):  # it ended, or is somebody else's
            command = process.cmdline()
            if _works_on_the_pipeline(command) and Path(process.cwd()).is_relative_to(root):
                yield f"{' '.join(command)} (process {process.pid})"


def _works_on_the_pipeline(command: list[str]) -> bool:
    named = {Path(part).name for part in command[:2]}
    modules = {after for before, after in itertools.pairwise(command) if before == "-m"}
    return "dvc" in named | modules or any(module.startswith("stages.") for module in modules)


def _held_locks(root: Path, own: set[Path]) -> Iterator[str]:
    for path in sorted({path for pattern in LOCKS for path in root.glob(pattern)} - own):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield f"the holder of {path.relative_to(root)}"
        else:
            lock.release()
