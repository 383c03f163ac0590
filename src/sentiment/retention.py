"""Remove what recent commits, tags, experiments and searches do not need: from this disk and CI's caches."""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.data.download_cache import CacheEntry, Checksum
from sentiment.data.locations import to_local_path
from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.data import FilesSource, ImdbSource
from sentiment.repair import REPAIR_HINT, find_damaged_files
from sentiment.repository import DVC_SUFFIX, require_idle
from sentiment.settings import load_settings, repository_root
from sentiment.tracking import mlflow_store as leftovers

logger = logging.getLogger(__name__)


COLLECTED = re.compile(r"^Removing (.+)$", re.MULTILINE)
"""What `dvc gc --dry` prints for each object of the cache."""


MD5 = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)")
"""In a `.dvc` file, of an output or a dependency."""


@dataclass(frozen=True)
class RetentionPolicy:
    """What stays.

    commits: of HEAD and of every branch, so many of the newest. studies: so many of the newest searches.
    days: how long checkpoints, downloads and deleted runs that nothing needs stay nevertheless.
    """

    commits: int
    studies: int
    days: float


def clean(keep: RetentionPolicy, *, remove: bool) -> None:
    """Print what nothing needs, by kind and size; remove it if told to.

    Raises UserError, with nothing removed, while a stage, a search or a DVC command runs, or outside a
    repository that git and DVC can read.
    """
    root = repository_root()
    if damaged := find_damaged_files(root):
        raise UserError("\n  ".join([f"damaged files; {REPAIR_HINT} first:", *damaged]))
    require_idle(root)
    # The cache goes first: what DVC cannot decide, such as a commit that it cannot read, ends everything.
    objects = _unneeded_in_cache(root, keep)
    require_idle(root)  # that took seconds, and from here on things go
    total = _report("DVC cache", objects, remove=remove)
    total += _report("studies", _old_studies(root, keep.studies), remove=remove)
    total += _report("checkpoints", _stale((root / paths.CHECKPOINTS).glob("*"), keep.days), remove=remove)
    total += _report("downloads", _old_downloads(root, keep.days), remove=remove)
    total += _clean_runs(keep.days, remove=remove)
    logger.info(
        f"{_megabytes(total)} {'removed' if remove else 'could be removed: `sentiment clean --yes` does it'}"
    )


def _report(kind: str, sizes: dict[Path, int], *, remove: bool = False) -> int:
    """Print number and size of some files and folders, remove them if told to, return their size."""
    if remove:
        for path in sizes:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    total = sum(sizes.values())
    logger.info(f"{kind}: {len(sizes)} not needed, {_megabytes(total)}")
    return total


def _unneeded_in_cache(root: Path, keep: RetentionPolicy) -> dict[Path, int]:
    """Return sizes of the cache's objects that no kept commit, tag, experiment or file here needs.

    `dvc gc` itself would break the run cache: it holds metrics too, which are no part of DVC's cache
    otherwise, and without them no stage is restored. So they stay with the outputs that they belong to.
    """
    cache = Path(_dvc("cache", "dir").strip())
    if cache.is_symlink() or cache.resolve() != (root / ".dvc" / "cache").resolve():
        logger.info(f"DVC cache: in {cache}, which others may use too; left alone")
        return {}
    if _git("for-each-ref", "refs/exps/stash", "refs/exps/celery/stash"):
        logger.info("DVC cache: experiments are queued (`dvc queue status`); left alone")
        return {}
    _git("rev-parse", "--verify", "HEAD")
    kept = ("--workspace", "--all-tags", "--all-branches", "--all-experiments", "--rev", "HEAD")
    printed = _dvc("gc", *kept, "--num", str(keep.commits), "--force", "--dry")
    objects = {Path(name) for name in COLLECTED.findall(printed)} - _pinned_objects(cache)
    unneeded_runs = set()
    for file in (path for path in (cache / "runs").rglob("*") if path.is_file()):
        outputs = _outputs_of_run(file, cache)
        if any(
            path in objects and not name.startswith(f"{paths.METRICS}/") for name, path in outputs.items()
        ):
            unneeded_runs.add(file)
        else:
            objects -= set(outputs.values())
    return {path: _size(path) for path in sorted(objects | unneeded_runs)}


def _pinned_objects(cache: Path) -> set[Path]:
    """Return the objects that the `.dvc` files of any commit or git stash name.

    No stage can make them again, so their age does not matter.
    """
    listed = _git("rev-list", "--objects", "--all", "--reflog")
    named = (line.split(" ", 1) for line in listed.splitlines() if line.endswith(DVC_SUFFIX))
    blobs = {
        blob for blob, path in named if Path(path).name != DVC_SUFFIX
    }  # DVC's own folder is no such file
    found: set[Path] = set()
    for blob in sorted(blobs):
        found |= {_object(cache, md5) for md5 in MD5.findall(_git("cat-file", "blob", blob))}
    for folder in [path for path in found if path.suffix == ".dir" and path.is_file()]:
        found |= {_object(cache, str(entry["md5"])) for entry in json.loads(folder.read_bytes())}
    return found


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _outputs_of_run(file: Path, cache: Path) -> dict[str, Path]:
    """Return names and cached objects of the outputs that an entry of the run cache restores."""
    try:
        outputs = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))["outs"]
        md5s = {str(output["path"]): str(output["md5"]) for output in outputs}
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    return {name: _object(cache, md5) for name, md5 in md5s.items()}


def _old_studies(root: Path, number: int) -> dict[Path, int]:
    """Return sizes of the folders of all but the newest searches; their trials stay in the journal."""
    folders = [path for path in (root / paths.STUDIES).glob("*") if path.is_dir()]
    return {path: _size(path) for path in sorted(folders, key=_newest, reverse=True)[number:]}


def _stale(folders: Iterable[Path], days: float) -> dict[Path, int]:
    oldest = time.time() - days * 86400
    return {path: _size(path) for path in sorted(folders) if path.is_dir() and _newest(path) < oldest}


def _old_downloads(root: Path, days: float) -> dict[Path, int]:
    """Return sizes of old downloads but those that the sources in params.yaml are read from."""
    if load_settings().download_cache is not None:
        return {}  # a folder of the user's, perhaps of several repositories
    needed, by_pattern = set(), False
    for source in load_params().download.sources:
        if isinstance(source, ImdbSource | FilesSource):
            checksum = Checksum.parse(source.checksum) if source.checksum else None
            remote = [url for url in source.locations if to_local_path(url) is None]
            needed |= {CacheEntry.of(url, checksum).folder for url in remote}
            by_pattern = by_pattern or any(set(url) & set("*?[") for url in remote)
    if by_pattern:  # which of them it matches, only the server knows
        return {}
    entries = (path for path in (root / ".cache" / "downloads").glob("*") if path not in needed)
    return _stale(entries, days)


def _clean_runs(days: float, *, remove: bool) -> int:
    if not leftovers.is_local():
        return 0
    deleted = leftovers.deleted_runs(days)
    logger.info(f"MLflow runs deleted more than {days:g} days ago: {len(deleted)}")
    artifacts = repository_root() / "mlruns" / "artifacts"
    size = sum(_size(artifacts / run) for run in deleted)
    if remove and deleted:
        leftovers.purge_deleted_runs(days)
    orphaned = {path: _size(path) for path in leftovers.orphaned_artifacts() if path.exists()}
    return size + _report("artifacts of no run", orphaned, remove=remove)


def _files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else iter([path])


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in _files(path) if file.exists())


def _newest(folder: Path) -> float:
    return max((file.lstat().st_mtime for file in _files(folder)), default=folder.stat().st_mtime)


def _dvc(*arguments: str) -> str:
    return _run([sys.executable, "-m", "dvc", *arguments])


def _git(*arguments: str) -> str:
    return _run(["git", *arguments])


def _run(command: list[str]) -> str:
    """Return what a command prints. Raises UserError with the last line of what it says where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; nothing was removed") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        shown = " ".join(command[2:] if command[1] == "-m" else command)
        raise UserError(f"`{shown}` failed, nothing was removed: {lines[0] if lines else done.returncode}")
    return done.stdout


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
