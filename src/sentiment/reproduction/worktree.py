"""Temporary git worktrees, in which a pipeline runs isolated from the user's outputs, caches and stores."""

import configparser
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from sentiment.data.download_cache import get_cache_folder
from sentiment.errors import UserError
from sentiment.repository import require_git, run_git
from sentiment.settings import load_settings

WORKTREES = Path(".cache/worktrees")
"""Folder of the worktrees: on the disk of the repository, and ignored by git and DVC."""

TRACKING_URI = "sqlite:///mlruns/mlflow.db"
"""MLflow store of a worktree, relative to its root."""

REMOVED_VARIABLES = ("DVC_", "MLFLOW_", "GIT_", "RAY_", "TUNE_STORAGE")
"""Prefixes of environment variables that connect a worktree with the user's repository, stores or cluster."""

WAIT_S = 10
"""Time limit for terminated processes to end, after which they are killed."""


@contextmanager
def open_worktree(commit: str) -> Iterator[Path]:
    """Yield the project's root in a clean worktree of a commit; end its processes and remove it afterwards.

    It is removed also after Ctrl-C, SIGTERM and SIGHUP. What a killed process left is removed by the next
    call.

    Args:
        commit: hash of the commit.

    Raises:
        UserError: git cannot create the worktree.
    """
    base = Path.cwd() / WORKTREES
    base.mkdir(parents=True, exist_ok=True)
    folder = base / secrets.token_hex(4)
    lock = FileLock(_get_lock_path(folder))
    with FileLock(base / ".lock"):  # so that no other process takes this worktree for an abandoned one
        _remove_abandoned(base)
        lock.acquire(timeout=0)
    try:
        with _interrupted_by_signals():
            prefix = (run_git("rev-parse", "--show-prefix") or b"").decode().strip()
            # No hooks: they may have side effects, such as installing packages.
            no_hooks = ("-c", f"core.hooksPath={os.devnull}")
            require_git(*no_hooks, "worktree", "add", "--detach", str(folder), commit)
            root = folder / prefix
            _isolate_dvc(root)
            yield root
    finally:
        _remove(folder)
        lock.release()
        _get_lock_path(folder).unlink(missing_ok=True)


def _get_lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _remove_abandoned(base: Path) -> None:
    """Remove the worktrees whose processes were killed."""
    for folder in [path for path in base.iterdir() if path.is_dir()]:
        lock = FileLock(_get_lock_path(folder))
        with suppress(Timeout), lock.acquire(timeout=0):
            _remove(folder)
            _get_lock_path(folder).unlink(missing_ok=True)
    run_git("worktree", "prune")


def _remove(folder: Path) -> None:
    _end_processes(folder)
    run_git("worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)  # if git does not know it any more
    run_git("worktree", "prune")


def _end_processes(folder: Path) -> None:
    """Terminate the processes that run in a folder: DVC, a stage, its workers."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.terminate()
                processes.append(process)
    _, alive = psutil.wait_procs(processes, WAIT_S)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, WAIT_S)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Exit by an exception on SIGTERM and SIGHUP, so that the worktree is removed."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def exit_(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, exit_) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _isolate_dvc(root: Path) -> None:
    """Give a worktree its own cache, whatever the configuration of the repository, user or system is."""
    config = configparser.ConfigParser(interpolation=None)
    config["cache"] = {"dir": str(root / ".dvc" / "cache")}
    with (root / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def run_stage(root: Path, stage: str) -> None:
    """Run one stage in a worktree, without DVC's run cache. Its output goes to standard error.

    Args:
        root: root of the project in the worktree.
        stage: name of the stage in `dvc.yaml`.

    Raises:
        UserError: the stage failed.
    """
    command = ["repro", "--force", "--no-run-cache", "--single-item", stage]
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *command],
        cwd=root,
        env=_build_environment(root),
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,  # Ctrl-C reaches this process only, which ends the others
        check=False,
    )
    if process.returncode:
        raise UserError(
            f"{stage} failed in the worktree, with the reason above: its code does not run with the packages "
            "and data of this machine"
        )


def _build_environment(root: Path) -> dict[str, str]:
    """Return the environment of a worktree's stages: its own code, DVC cache, MLflow store and studies."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(REMOVED_VARIABLES)
    }  # what limits threads and instruction sets is retained
    workers = load_settings().tune_workers
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(root / "src"),
        "MLFLOW_TRACKING_URI": TRACKING_URI,
        "DOWNLOAD_CACHE": str(get_cache_folder().resolve()),
        **({"TUNE_WORKERS": str(workers)} if workers else {}),
    }
