"""Whether a DVC command or a stage is at work in a repository."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sentiment import paths
from sentiment.errors import UserError
from sentiment.repair.rwlock import holders

LOCKS = (f"{paths.CHECKPOINTS}/*/.lock", f"{paths.STUDIES}/*/*.lock")
"""Files that trainings and searches lock; the system lets go of them when the process dies."""


def require_idle(root: Path, tmp: Path) -> None:
    """Raise UserError where a process works in the repository: it may be writing what looks damaged."""
    for found in (*_dvc_holders(tmp), *_processes_at(root), *_held_locks(root)):
        raise UserError(f"{found}: wait until it ends, or stop it, then start this again")


def _dvc_holders(tmp: Path) -> Iterator[str]:
    for info in holders(tmp):
        if _is_alive(info):
            yield f"DVC is at work here (PID {info['pid']}, {info['cmd']})"


def _is_alive(info: dict[str, Any]) -> bool:
    """Whether an entry's process runs: the number alone may by now be another process's."""
    try:
        command = psutil.Process(info["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: better to refuse
        return True
    return info["cmd"] in " ".join(command) or _works_on_the_pipeline(command)


def _processes_at(root: Path) -> Iterator[str]:
    """Yield DVC commands and stages whose working directory is the root; not this process and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(psutil.Error, OSError):  # it ended, or is somebody else's
            command = process.cmdline()
            if _works_on_the_pipeline(command) and Path(process.cwd()).is_relative_to(root):
                yield f"a process is at work here (PID {process.pid}, {' '.join(command)})"


def _works_on_the_pipeline(command: list[str]) -> bool:
    named = {Path(part).name for part in command[:2]}
    modules = {after for before, after in itertools.pairwise(command) if before == "-m"}
    return "dvc" in named | modules or any(module.startswith("stages.") for module in modules)


def _held_locks(root: Path) -> Iterator[str]:
    for pattern in LOCKS:
        for path in root.glob(pattern):
            try:
                FileLock(path).acquire(timeout=0).lock.release()
            except Timeout:
                yield f"a training or a search holds {path.relative_to(root)}"
