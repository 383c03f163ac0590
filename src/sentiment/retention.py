"""Retention: remove files from the repository and CI caches that no recent commit, tag or study needs."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.data.download_cache import CacheEntry, Checksum
from sentiment.data.locations import to_local_path
from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.sources import FilesSource, ImdbSource
from sentiment.repair import REPAIR_HINT, find_corrupt_files
from sentiment.repository import DVC_SUFFIX
from sentiment.repository_locks import require_idle
from sentiment.settings import load_settings, repository_root
from sentiment.tracking import mlflow_store

GC_REMOVAL_LINE = re.compile(r"^Removing (.+)$", re.MULTILINE)
"""Line that `dvc gc --dry` prints for each object of the cache that it would remove."""

MD5 = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)")
"""MD5 of an output or a dependency in a `.dvc` file."""


@dataclass(frozen=True)
class RetentionPolicy:
    """Numbers and ages of the files that `sentiment clean` retains."""

    commits: int
    """Number of newest commits, of HEAD and of every branch, whose files are retained."""
    studies: int
    """Number of newest studies whose models are retained."""
    days: float
    """Days for which unused checkpoints, downloads and deleted runs are retained."""


def clean(policy: RetentionPolicy, *, remove: bool) -> None:
    """Print the number and total size of unneeded files of each kind, and optionally remove them.

    Args:
        policy: retention policy.
        remove: whether to remove the files.

    Raises:
        UserError: a stage or a DVC command is running, or git or DVC cannot read the repository. Nothing has
            been removed then.
    """
    root = repository_root()
    if corrupt_files := find_corrupt_files(root):
        raise UserError("\n  ".join([f"found corrupt files; {REPAIR_HINT} first:", *corrupt_files]))
    require_idle(root)
    # The cache comes first: if DVC fails, for example at a commit that it cannot read, nothing is removed.
    objects = _find_unneeded_objects(root, policy)
    require_idle(root)  # again: that took seconds, and the removal starts here
    total = _report_and_remove("DVC cache", objects, remove=remove)
    total += _report_and_remove("studies", _find_old_studies(root, policy.studies), remove=remove)
    total += _report_and_remove(
        "checkpoints", _find_stale_folders((root / paths.CHECKPOINTS).glob("*"), policy.days), remove=remove
    )
    total += _report_and_remove("downloads", _find_old_downloads(root, policy.days), remove=remove)
    total += _clean_mlflow_runs(policy.days, remove=remove)
    outcome = "removed" if remove else "can be removed with `sentiment clean --yes`"
    typer.echo(f"{_format_megabytes(total)} {outcome}")


def _report_and_remove(kind: str, sizes: dict[Path, int], *, remove: bool = False) -> int:
    """Print the number and total size of files and folders, optionally remove them, and return the size."""
    if remove:
        for path in sizes:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    total = sum(sizes.values())
    typer.echo(f"{kind}: {len(sizes)} not needed, {_format_megabytes(total)}")
    return total


def _find_unneeded_objects(root: Path, policy: RetentionPolicy) -> dict[Path, int]:
    """Return the sizes of cached objects that no retained commit, tag, experiment or working file needs.

    `dvc gc` alone would break the run cache. The run cache refers to copies of the metrics files, which are
    not cached otherwise: `dvc gc` would delete these copies, and DVC can restore a stage only if all of its
    outputs are there. They are therefore retained for as long as the other outputs of their stage.
    """
    cache = Path(_run_dvc("cache", "dir").strip())
    if cache.is_symlink() or cache.resolve() != (root / ".dvc" / "cache").resolve():
        typer.echo(f"DVC cache: skipped, because {cache} may be shared with other repositories")
        return {}
    if _run_git("for-each-ref", "refs/exps/stash", "refs/exps/celery/stash"):
        typer.echo("DVC cache: skipped, because experiments are queued (`dvc queue status`)")
        return {}
    _run_git("rev-parse", "--verify", "HEAD")
    retained = ("--workspace", "--all-tags", "--all-branches", "--all-experiments", "--rev", "HEAD")
    output = _run_dvc("gc", *retained, "--num", str(policy.commits), "--force", "--dry")
    objects = {Path(name) for name in GC_REMOVAL_LINE.findall(output)} - _find_pinned_objects(cache)
    unneeded_runs = set()
    for file in (path for path in (cache / "runs").rglob("*") if path.is_file()):
        outputs = _read_run_outputs(file, cache)
        if any(
            path in objects and not name.startswith(f"{paths.METRICS}/") for name, path in outputs.items()
        ):
            unneeded_runs.add(file)
        else:
            objects -= set(outputs.values())
    return {path: _measure_size(path) for path in sorted(objects | unneeded_runs)}


def _find_pinned_objects(cache: Path) -> set[Path]:
    """Return the cached objects that `.dvc` files in any commit or git stash refer to.

    They are retained whatever their age, because no stage can write them again.
    """
    output = _run_git("rev-list", "--objects", "--all", "--reflog")
    entries = (line.split(" ", 1) for line in output.splitlines() if line.endswith(DVC_SUFFIX))
    blobs = {blob for blob, path in entries if Path(path).name != DVC_SUFFIX}  # without the folder `.dvc`
    objects: set[Path] = set()
    for blob in sorted(blobs):
        objects |= {_get_object_path(cache, md5) for md5 in MD5.findall(_run_git("cat-file", "blob", blob))}
    for folder in [path for path in objects if path.suffix == ".dir" and path.is_file()]:
        objects |= {_get_object_path(cache, str(entry["md5"])) for entry in json.loads(folder.read_bytes())}
    return objects


def _get_object_path(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _read_run_outputs(file: Path, cache: Path) -> dict[str, Path]:
    """Return the outputs of a run-cache entry: their paths, and their objects in the cache."""
    try:
        outputs = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))["outs"]
        md5s = {str(output["path"]): str(output["md5"]) for output in outputs}
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    return {name: _get_object_path(cache, md5) for name, md5 in md5s.items()}


def _find_old_studies(root: Path, retained: int) -> dict[Path, int]:
    """Return the folder sizes of all but the newest studies. The trials remain in Optuna's journal."""
    folders = [path for path in (root / paths.STUDIES).glob("*") if path.is_dir()]
    return {
        path: _measure_size(path) for path in sorted(folders, key=_get_last_change, reverse=True)[retained:]
    }


def _find_stale_folders(folders: Iterable[Path], days: float) -> dict[Path, int]:
    """Return the sizes of the folders in which nothing has changed for this number of days."""
    oldest = time.time() - days * 86400
    return {
        path: _measure_size(path)
        for path in sorted(folders)
        if path.is_dir() and _get_last_change(path) < oldest
    }


def _find_old_downloads(root: Path, days: float) -> dict[Path, int]:
    """Return the sizes of old downloads, except those of the sources in params.yaml."""
    if load_settings().download_cache is not None:
        return {}  # other repositories may share this folder
    needed_folders, has_patterns = set(), False
    for source in load_params().download.sources:
        if isinstance(source, ImdbSource | FilesSource):
            checksum = Checksum.parse(source.checksum) if source.checksum else None
            remote = [url for url in source.locations if to_local_path(url) is None]
            needed_folders |= {CacheEntry.from_url(url, checksum).folder for url in remote}
            has_patterns = has_patterns or any(set(url) & set("*?[") for url in remote)
    if has_patterns:  # only the server knows which files a pattern matches
        return {}
    entries = (path for path in (root / ".cache" / "downloads").glob("*") if path not in needed_folders)
    return _find_stale_folders(entries, days)


def _clean_mlflow_runs(days: float, *, remove: bool) -> int:
    """Report MLflow runs in the trash and orphaned artifacts, optionally remove them; return their size."""
    if not mlflow_store.has_default_store():
        return 0
    deleted = mlflow_store.find_deleted_runs(days)
    typer.echo(f"MLflow runs deleted more than {days:g} days ago: {len(deleted)}")
    artifacts = repository_root() / "mlruns" / "artifacts"
    size = sum(_measure_size(artifacts / run) for run in deleted)
    if remove and deleted:
        mlflow_store.purge_deleted_runs(days)
    orphaned = {path: _measure_size(path) for path in mlflow_store.find_orphaned_artifacts() if path.exists()}
    return size + _report_and_remove("orphaned artifacts", orphaned, remove=remove)


def _iterate_files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else iter([path])


def _measure_size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    return sum(file.lstat().st_size for file in _iterate_files(path) if file.exists())


def _get_last_change(folder: Path) -> float:
    """Return the latest modification time of the files in a folder."""
    return max((file.lstat().st_mtime for file in _iterate_files(folder)), default=folder.stat().st_mtime)


def _run_dvc(*arguments: str) -> str:
    return _run_command([sys.executable, "-m", "dvc", *arguments])


def _run_git(*arguments: str) -> str:
    return _run_command(["git", *arguments])


def _run_command(command: list[str]) -> str:
    """Return the output of a command.

    Raises:
        UserError: the command fails. The message contains the first line of its error output.
    """
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; nothing was removed") from None
    if process.returncode != 0:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        shown = " ".join(command[2:] if command[1] == "-m" else command)
        raise UserError(f"`{shown}` failed, nothing was removed: {lines[0] if lines else process.returncode}")
    return process.stdout


def _format_megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
