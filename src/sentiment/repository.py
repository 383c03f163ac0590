"""The git repository: its files and commits, processes that use it, and the copies of DVC experiments."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sentiment import paths
from sentiment.errors import UserError
from sentiment.settings import repository_root


def run_git(*arguments: str, root: Path | None = None) -> bytes | None:
    """Run a git command and return its output, or None if it fails.

    Args:
        arguments: Of git.
        root: Folder to run it in; by default the working directory.
    """
    # `git status` would lock the index to refresh it, and a git command of DVC or the user would then fail.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def read_committed(name: str, root: Path | None = None) -> bytes | None:
    """Return the content of a file below `root` in the last commit, or None if it is not in it."""
    return run_git("show", f"HEAD:./{name}", root=root)


def list_files(*arguments: str, root: Path | None = None) -> list[str]:
    """Return the paths that `git ls-files` prints; an empty list if it fails."""
    found = run_git("ls-files", "-z", *arguments, root=root) or b""
    return [os.fsdecode(name) for name in found.split(b"\0") if name]


DVC_TEMPORARY = Path(".dvc/tmp")
"""DVC's locks in this repository and, below `exps`, in the copies of its experiments."""

DVC_LOCK = DVC_TEMPORARY / "lock"
LOCKS = (
    str(DVC_LOCK),
    f"{DVC_TEMPORARY}/exps/**/lock",
    f"{paths.CHECKPOINTS}/*/.lock",
    f"{paths.STUDIES}/*/*.lock",
    ".cache/downloads/*/.lock",
)
"""Lock files of DVC, trainings, studies and downloads; the system unlocks them when the process ends."""


def require_idle(root: Path, *, holds_dvc_lock: bool = False) -> None:
    """Require that no process uses a repository: it may be writing what looks corrupt or unused.

    Args:
        root: Of the repository.
        holds_dvc_lock: Whether the caller itself holds DVC's lock.

    Raises:
        UserError: A DVC command or a stage is running; all of them are named.
    """
    own = {root / DVC_LOCK} if holds_dvc_lock else set[Path]()
    found = [
        *_find_dvc_processes(root / DVC_TEMPORARY),
        *_find_pipeline_processes(root),
        *_find_held_locks(root, own),
    ]
    if found:
        raise UserError(
            "\n  ".join(
                [
                    "other processes are using this repository; wait for them to finish and try again:",
                    *found,
                ]
            )
        )


def read_rwlock_holders(file: Path) -> list[dict[str, Any]]:
    """Return the processes that DVC's read-write lock names, each with its `pid` and `cmd`.

    The list is empty if the file is missing or corrupt: `require_idle` finds DVC's processes without it too.
    """
    try:
        lock = json.loads(file.read_bytes())
        found = [*lock.get("write", {}).values()]
        found += [holder for readers in lock.get("read", {}).values() for holder in readers]
        return [{"pid": int(holder["pid"]), "cmd": str(holder["cmd"])} for holder in found]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _find_dvc_processes(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("rwlock")):
        alive = {(holder["cmd"], holder["pid"]) for holder in read_rwlock_holders(file) if _is_alive(holder)}
        yield from (f"{command} (process {pid})" for command, pid in sorted(alive))


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process of an entry is running; its pid may have been reused."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's process: assume that it is DVC
        return True
    return holder["cmd"] in " ".join(command) or _is_pipeline_command(command)


def _find_pipeline_processes(root: Path) -> Iterator[str]:
    """Yield DVC commands and stages that run below the root, without this process and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            command = process.cmdline()
            if _is_pipeline_command(command) and Path(process.cwd()).is_relative_to(root):
                yield f"{' '.join(command)} (process {process.pid})"


def _is_pipeline_command(command: list[str]) -> bool:
    named = {Path(part).name for part in command[:2]}
    modules = {after for before, after in itertools.pairwise(command) if before == "-m"}
    return "dvc" in named | modules or any(module.startswith("stages.") for module in modules)


def _find_held_locks(root: Path, own: set[Path]) -> Iterator[str]:
    for path in sorted({path for pattern in LOCKS for path in root.glob(pattern)} - own):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield f"the process that holds {path.relative_to(root)}"
        else:
            lock.release()


DVC_SUFFIX = ".dvc"
"""Suffix of the files in which DVC records tracked data."""


def list_incoming_files(root: Path = Path()) -> list[str]:
    """Return the data files in `data/incoming`, sorted, as paths relative to `root`.

    Hidden files, `.dvc` files and the README are not data.

    Raises:
        UserError: A subfolder is a symbolic link, in whose target DVC detects no changes.
    """
    found = []
    for folder, subfolders, files in os.walk(root / paths.INCOMING):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in subfolders:
            if (root / inside / name).is_symlink():
                raise UserError(
                    f"{inside / name}: a symbolic link to a folder: DVC does not detect changes in it; "
                    "put the files themselves here, or links to files"
                )
        names = (
            inside / name for name in files if not name.startswith(".") and not name.endswith(DVC_SUFFIX)
        )
        found += [path.as_posix() for path in names if path != paths.INCOMING / "README.md"]
    return sorted(found)


def require_incoming_in_copy() -> None:
    """Require that the copy of an experiment contains all files of the user's `data/incoming`.

    `dvc exp run --temp` and `--queue` copy only what git and DVC track. The pipeline would then find nothing
    changed and train without the untracked files. Every stage calls this, since DVC may skip download. Files
    committed after the experiment was queued are not part of it and may be missing.

    Raises:
        UserError: Untracked files are missing; all of them are named.
    """
    root = repository_root()
    if root == Path.cwd().resolve():
        return
    here, known = set(list_incoming_files()), set(list_files("--", str(paths.INCOMING), root=root))
    missing = []
    for name in list_incoming_files(root):
        if name not in here and not any(path in known for path in _list_tracked_paths(name)):
            missing.append(f"{name}: tracked by neither git nor DVC")
    if missing:
        raise UserError(
            "\n  ".join(
                [
                    "this experiment runs in a copy of the repository, in which data/incoming lacks:",
                    *missing,
                    "`git add` such a file, or `dvc add` it and `git add` its .dvc file; or pass it to DVC's "
                    "`--copy-paths`; or run the experiment without `--temp` and `--queue`",
                ]
            )
        )


def _list_tracked_paths(name: str) -> Iterator[str]:
    """Yield the paths by which git may track a file: itself, its `.dvc` file, or that of a parent folder."""
    yield name
    for tracked in (Path(name), *Path(name).parents):
        if tracked == paths.INCOMING:
            return
        yield tracked.with_name(tracked.name + DVC_SUFFIX).as_posix()
