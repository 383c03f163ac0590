"""Repairs what a kill, a full disk or a power cut left half written: DVC's own files, its cache, ours.

DVC opens `dvc.lock` and `.dvc/tmp/rwlock` for writing in place, so a process that dies meanwhile leaves them
empty or truncated, and every later DVC command stops at them.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.dvc_repair import (
    repair_dvc_files,
    repair_lock,
    repair_rwlock,
    suspect_dvc_files,
    suspect_rwlocks,
)
from sentiment.errors import UserError
from sentiment.files import atomic_write, compute_file_md5, compute_md5
from sentiment.repository import read_committed

OURS = re.compile(r"\..+\.partial(-journal)?")
"""Made by `atomic_write`, and by sqlite beside a store that is being made."""

DVCS = re.compile(r"\.[\w-]{22}\.tmp")
"""Made by DVC beside what it copies to a cache or a working tree."""

PLACES = (paths.CHECKPOINTS, paths.JOURNAL.parent, paths.STUDIES, paths.REPORTS)
"""Where stages write besides their outputs."""


def _suspect_leftovers(root: Path) -> list[str]:
    """Return which metrics of the working tree cannot be read."""
    return [f"{path}: truncated or corrupt" for path in metrics_files(root) if is_damaged(root / path)]


def repair_leftovers(root: Path, tmp: Path) -> Iterator[str]:
    """Remove temporary files of dead processes; take a last line that was cut off out of the journal."""
    for path in sorted(_temporary(root, tmp)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        yield f"{path.relative_to(root)}: left over from a process that died, removed"
    yield from _repair_journal(root / paths.JOURNAL, root)


def metrics_files(root: Path) -> list[Path]:
    """Return the files that dvc.yaml names as metrics; none where it cannot be read."""
    return _named(root, ("metrics",))


def is_damaged(path: Path) -> bool:
    """Whether a JSON file is there and cannot be read."""
    if path.suffix != ".json":
        return False
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _temporary(root: Path, tmp: Path) -> set[Path]:
    """Find temporary files; no link is followed, and nothing outside the root is looked at."""
    outputs = [root / path for path in _named(root, ("outs", "metrics", "plots"))]
    beside = {output.parent for output in outputs} | {root}
    inside = [output for output in outputs if output.is_dir() and not output.is_symlink()]
    places = [root / place for place in PLACES] + [tmp.parent / "cache"]
    found = {path for folder in beside for path in folder.glob(".*")}
    found |= {path for folder in (*inside, *places) for path in folder.rglob(".*")}
    return {path for path in found if OURS.fullmatch(path.name) or DVCS.fullmatch(path.name)}


def _named(root: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Return what dvc.yaml names as such outputs; nothing where it cannot be read, as DVC will say."""
    try:
        stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
        entries = [entry for stage in stages.values() for kind in kinds for entry in stage.get(kind, ())]
        return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]
    except (OSError, YAMLError, KeyError, TypeError, AttributeError):
        return []


def _repair_journal(path: Path, root: Path) -> Iterator[str]:
    """Cut off a last line that has no end: its entry was never confirmed to its writer."""
    if not path.exists():
        return
    with FileLock(path.with_name(f"{path.name}.writing")), path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            yield f"{path.relative_to(root)}: last line truncated, removed; the entries before it are whole"


READ_ONLY = 0o444
"""Mode of an object in DVC's cache."""

MD5 = "md5"


def repair_objects(repo: Any, root: Path) -> Iterator[str]:
    """Repair cached objects and working files of the outputs in dvc.lock.

    Files of the working tree are made where they are missing and, of metrics, where they cannot be read;
    others that differ from dvc.lock may be somebody's work.

    Args:
        repo: a `dvc.repo.Repo` whose lock is held.
        root: its folder.
    """
    missing = []
    outputs = [out for out in repo.index.outs if out.hash_info and out.hash_info.name == MD5]
    for out in outputs:
        yield from _repair_cached(out)
    for out in outputs:
        path, name = Path(out.fs_path), out.def_path
        if not out.use_cache and (is_damaged(path) or not path.exists()):
            if _restore_metrics(out, root):
                yield f"{name}: restored as dvc.lock names it"
            else:
                missing.append(name)
        elif out.use_cache and not path.exists():
            if out.changed_cache():
                missing.append(name)
                continue
            path.unlink(missing_ok=True)  # a link to an object that is gone
            out.checkout(force=True)
            yield f"{name}: missing, restored from the cache"
    if missing:
        yield (
            f"{', '.join(missing)}: neither here nor in the cache; `dvc repro` makes them again, "
            "`dvc pull` brings them where there is a remote"
        )


def _repair_cached(out: Any) -> Iterator[str]:
    """Check the cached objects of an output by their hashes; replace or remove damaged ones."""
    odb, workspace, root = out.cache, Path(out.fs_path), Path(out.repo.root_dir)
    # What no stage writes exists nowhere else, perhaps: a damaged object of it is moved, not removed.
    rescue = Path(out.repo.tmp_dir) if out.stage.is_data_source else None
    name = workspace.relative_to(root).as_posix() if workspace.is_relative_to(root) else out.def_path
    yield from _repair_object(odb, out.hash_info.value, workspace, name, rescue)
    if not out.is_dir_checksum or not Path(odb.oid_to_path(out.hash_info.value)).exists():
        return
    for key, _, info in out.get_obj() or ():
        inner = "/".join((name, *key))
        yield from _repair_object(odb, info.value, workspace.joinpath(*key), inner, rescue)


def _repair_object(odb: Any, oid: str, workspace: Path, name: str, rescue: Path | None) -> Iterator[str]:
    path = Path(odb.oid_to_path(oid))
    right = oid.removesuffix(".dir")
    if not path.is_file() or compute_file_md5(path) == right:
        return
    if workspace.is_file() and compute_file_md5(workspace) == right:
        with atomic_write(path) as temporary:
            shutil.copyfile(workspace, temporary)
            temporary.chmod(READ_ONLY)
        yield f"{name}: its object in the cache was damaged, replaced by the file here"
    elif rescue is not None:
        moved = rescue / f"damaged-{oid}"
        shutil.move(path, moved)
        yield (
            f"{name}: its object in the cache is damaged, moved to {moved}; no stage writes this file: "
            "`dvc pull` brings it where there is a remote, else take it from a backup or from there"
        )
    else:
        path.unlink()
        yield f"{name}: its object in the cache is damaged, removed; `dvc repro` makes it again"


def _restore_metrics(out: Any, root: Path) -> bool:
    """Write what dvc.lock names, from the run cache's objects or the last commit; False: neither has it."""
    cached = Path(out.cache.oid_to_path(out.hash_info.value))
    candidates = [cached.read_bytes()] if cached.is_file() else []
    candidates += [read_committed(out.def_path, root) or b""]
    for content in candidates:
        if compute_md5(content) == out.hash_info.value:
            with atomic_write(Path(out.fs_path)) as temporary:
                temporary.write_bytes(content)
            return True
    return False


REPAIR_HINT = "run `sentiment repair`"

WRITING_S = 0.5
"""DVC takes a tenth of that to write its largest file."""


def find_damaged_files(root: Path) -> list[str]:
    """Return, one line each, which files DVC or a stage would stop at. Fast: nothing is hashed."""
    found = _suspects(root)
    if found:  # DVC may be writing just now
        time.sleep(WRITING_S)
        found = [line for line in _suspects(root) if line in found]
    return found


def _suspects(root: Path) -> list[str]:
    return [*suspect_dvc_files(root), *suspect_rwlocks(root), *_suspect_leftovers(root)]


def repair(root: Path) -> Iterator[str]:
    """Repair what is damaged below a repository's root; yield a line for each thing done or found.

    Yields nothing where all is well. A damaged file that may hold something unique is copied to `.dvc/tmp`
    first.

    Raises:
        UserError: a DVC or stage process is alive, or this is no DVC repository.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo

    from sentiment.repository import require_idle

    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        raise UserError(f"{root}: no DVC repository; run this at the root of the project") from None
    tmp = Path(repo.tmp_dir)
    try:
        with repo.lock:  # so that no DVC command starts meanwhile
            require_idle(root, holds_dvc_lock=True)
            yield from repair_rwlock(tmp)
            yield from repair_lock(root, tmp)
            yield from repair_dvc_files(root)
            yield from repair_leftovers(root, tmp)
            yield from repair_objects(repo, root)
    except LockError:
        raise UserError(
            f"DVC is at work here, or {tmp / 'lock'} is left from a process on another machine: "
            "wait until it ends, then start this again"
        ) from None
    except DvcException as error:
        raise UserError(f"DVC cannot read this repository: {error}") from None
