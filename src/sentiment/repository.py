"""The git repository: its state, the processes that work in it, and the copies that DVC experiments make."""

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
    """Return what a git command prints, None where it fails.

    Args:
        arguments: of git.
        root: folder that it runs in, by default the working directory.
    """
    # A status that refreshes the index would take its lock from DVC or the user.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def read_committed(name: str, root: Path | None = None) -> bytes | None:
    """Return the content that a file below `root` has in the last commit, None where that lacks it."""
    return run_git("show", f"HEAD:./{name}", root=root)


def list_files(*arguments: str, root: Path | None = None) -> list[str]:
    """Return the paths that `git ls-files` names, none where it fails."""
    found = run_git("ls-files", "-z", *arguments, root=root) or b""
    return [os.fsdecode(name) for name in found.split(b"\0") if name]


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


def read_rwlock_holders(file: Path) -> list[dict[str, Any]]:
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
        alive = {(holder["cmd"], holder["pid"]) for holder in read_rwlock_holders(file) if _is_alive(holder)}
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


DVC_SUFFIX = ".dvc"
"""How the name of a file ends that records what DVC tracks."""


def list_incoming_files(root: Path = Path()) -> list[str]:
    """Return the data files in `data/incoming` below `root`, in order of name, as paths relative to `root`.

    Hidden files, `.dvc` files and the README are no data.
    Raises UserError where a subfolder is a symbolic link: DVC would not see what changes behind it.
    """
    found = []
    for folder, subfolders, files in os.walk(root / paths.INCOMING):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in subfolders:
            if (root / inside / name).is_symlink():
                raise UserError(
                    f"{inside / name}: a link to a folder, behind which DVC sees no change; "
                    "put the files themselves here, or links to files"
                )
        names = (
            inside / name for name in files if not name.startswith(".") and not name.endswith(DVC_SUFFIX)
        )
        found += [path.as_posix() for path in names if path != paths.INCOMING / "README.md"]
    return sorted(found)


def require_incoming_in_copy() -> None:
    """Raise UserError where this is an experiment's copy without files that the user has in `data/incoming`.

    `dvc exp run --temp` and `--queue` copy what git and DVC know. The pipeline would find that nothing has
    changed and train on less than the user sees in the folder. Every stage asks, since download may not run.
    What was committed after the experiment was queued is rightly not in its copy.
    """
    root = repository_root()
    if root == Path.cwd().resolve():
        return
    here, known = set(list_incoming_files()), set(list_files("--", str(paths.INCOMING), root=root))
    faults = []
    for name in list_incoming_files(root):
        if name not in here and not any(path in known for path in _committed_as(name)):
            faults.append(f"{name}: known to neither git nor DVC")
    if faults:
        raise UserError(
            "\n  ".join(
                [
                    "this experiment runs in a copy of the repository, in which data/incoming lacks:",
                    *faults,
                    "`git add` such a file, or `dvc add` it and `git add` its .dvc file; or name it by DVC's "
                    "`--copy-paths`; or leave out `--temp` and `--queue`",
                ]
            )
        )


def _committed_as(name: str) -> Iterator[str]:
    """Yield what git may know a file as: itself, its `.dvc` file, or that of a folder around it."""
    yield name
    for tracked in (Path(name), *Path(name).parents):
        if tracked == paths.INCOMING:
            return
        yield tracked.with_name(tracked.name + DVC_SUFFIX).as_posix()
