"""Repair of files in the repository and DVC's cache that a kill, full disk or power failure truncated.

DVC overwrites `dvc.lock` and `.dvc/tmp/rwlock` in place. A process that is killed while it writes leaves them
empty or truncated, and every later DVC command fails.
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
    find_corrupt_dvc_files,
    find_corrupt_rwlock,
    repair_dvc_files,
    repair_lock,
    repair_rwlock,
)
from sentiment.errors import UserError
from sentiment.files import atomic_write, compute_file_md5, compute_md5
from sentiment.repository import read_committed

OWN_TEMPORARY = re.compile(r"\..+\.partial(-journal)?")
"""Names of temporary files of `atomic_write`, and of sqlite's journal of a database that it writes."""

DVC_TEMPORARY = re.compile(r"\.[\w-]{22}\.tmp")
"""Names of temporary files that DVC writes while it copies to the cache or the working tree."""

FOLDERS = (paths.CHECKPOINTS, paths.JOURNAL.parent, paths.STUDIES, paths.REPORTS)
"""Folders that stages write to, in addition to their outputs."""


def _find_corrupt_metrics(root: Path) -> list[str]:
    """Return a line for each metrics file of the working tree that cannot be parsed."""
    return [f"{path}: truncated or corrupt" for path in list_metrics_files(root) if is_corrupt(root / path)]


def repair_leftovers(root: Path, dvc_tmp: Path) -> Iterator[str]:
    """Remove temporary files of dead processes and an incomplete last line of Optuna's journal.

    Args:
        root: root of the repository.
        dvc_tmp: DVC's folder for temporary files, `.dvc/tmp`.

    Yields:
        A line for each file that was removed or repaired.
    """
    for path in sorted(_find_temporary_files(root, dvc_tmp)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        yield f"{path.relative_to(root)}: left over from a dead process, removed"
    yield from _repair_journal(root / paths.JOURNAL, root)


def list_metrics_files(root: Path) -> list[Path]:
    """Return the metrics files that dvc.yaml declares; an empty list if dvc.yaml cannot be read."""
    return _list_dvc_yaml_outputs(root, ("metrics",))


def is_corrupt(path: Path) -> bool:
    """Return whether a JSON file exists and cannot be parsed."""
    if path.suffix != ".json":
        return False
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _find_temporary_files(root: Path, dvc_tmp: Path) -> set[Path]:
    """Return temporary files below the root; symbolic links are not followed."""
    outputs = [root / path for path in _list_dvc_yaml_outputs(root, ("outs", "metrics", "plots"))]
    parent_folders = {output.parent for output in outputs} | {root}
    output_folders = [output for output in outputs if output.is_dir() and not output.is_symlink()]
    other_folders = [root / folder for folder in FOLDERS] + [dvc_tmp.parent / "cache"]
    hidden_paths = {path for folder in parent_folders for path in folder.glob(".*")}
    hidden_paths |= {path for folder in (*output_folders, *other_folders) for path in folder.rglob(".*")}
    return {
        path
        for path in hidden_paths
        if OWN_TEMPORARY.fullmatch(path.name) or DVC_TEMPORARY.fullmatch(path.name)
    }


def _list_dvc_yaml_outputs(root: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Return the outputs of these kinds that dvc.yaml declares; an empty list if dvc.yaml is invalid."""
    try:
        stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
        entries = [entry for stage in stages.values() for kind in kinds for entry in stage.get(kind, ())]
        return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]
    except (OSError, YAMLError, KeyError, TypeError, AttributeError):
        return []


def _repair_journal(path: Path, root: Path) -> Iterator[str]:
    """Remove an incomplete last line, whose entry was never confirmed to the process that wrote it."""
    if not path.exists():
        return
    with FileLock(path.with_name(f"{path.name}.writing")), path.open("r+b") as file:
        content = file.read()
        complete_bytes = content.rfind(b"\n") + 1
        if complete_bytes < len(content):
            file.truncate(complete_bytes)
            yield f"{path.relative_to(root)}: incomplete last line removed"


READ_ONLY = 0o444
"""Permissions of an object in DVC's cache."""

MD5 = "md5"


def repair_objects(repo: Any, root: Path) -> Iterator[str]:
    """Repair cached objects and working files of the outputs in dvc.lock.

    In the working tree this restores missing files, and metrics files that cannot be parsed. Other files that
    differ from dvc.lock are left as they are, since the user may have edited them.

    Args:
        repo: `dvc.repo.Repo` whose lock is held.
        root: root of the repository.

    Yields:
        A line for each file that was repaired or cannot be repaired.
    """
    missing = []
    outputs = [out for out in repo.index.outs if out.hash_info and out.hash_info.name == MD5]
    for out in outputs:
        yield from _repair_cached_objects(out)
    for out in outputs:
        path, name = Path(out.fs_path), out.def_path
        if not out.use_cache and (is_corrupt(path) or not path.exists()):
            if _restore_metrics(out, root):
                yield f"{name}: restored to the state in dvc.lock"
            else:
                missing.append(name)
        elif out.use_cache and not path.exists():
            if out.changed_cache():
                missing.append(name)
                continue
            path.unlink(missing_ok=True)  # a link to a missing object
            out.checkout(force=True)
            yield f"{name}: missing, restored from the cache"
    if missing:
        yield (
            f"{', '.join(missing)}: neither here nor in the cache; `dvc repro` writes them again, or "
            "`dvc pull` downloads them from a remote"
        )


def _repair_cached_objects(out: Any) -> Iterator[str]:
    """Verify the hashes of an output's cached objects; replace, move or remove corrupt ones."""
    odb, workspace, root = out.cache, Path(out.fs_path), Path(out.repo.root_dir)
    # Data that no stage writes may exist nowhere else, so its corrupt objects are moved, not removed.
    backup_folder = Path(out.repo.tmp_dir) if out.stage.is_data_source else None
    name = workspace.relative_to(root).as_posix() if workspace.is_relative_to(root) else out.def_path
    yield from _repair_object(odb, out.hash_info.value, workspace, name, backup_folder)
    if not out.is_dir_checksum or not Path(odb.oid_to_path(out.hash_info.value)).exists():
        return
    for key, _, info in out.get_obj() or ():
        inner = "/".join((name, *key))
        yield from _repair_object(odb, info.value, workspace.joinpath(*key), inner, backup_folder)


def _repair_object(
    odb: Any, oid: str, workspace: Path, name: str, backup_folder: Path | None
) -> Iterator[str]:
    """Repair a corrupt object from the file in the workspace; otherwise move or remove it."""
    path = Path(odb.oid_to_path(oid))
    expected_md5 = oid.removesuffix(".dir")
    if not path.is_file() or compute_file_md5(path) == expected_md5:
        return
    if workspace.is_file() and compute_file_md5(workspace) == expected_md5:
        with atomic_write(path) as temporary:
            shutil.copyfile(workspace, temporary)
            temporary.chmod(READ_ONLY)
        yield f"{name}: its object in the cache was corrupt, replaced by the file here"
    elif backup_folder is not None:
        moved = backup_folder / f"corrupt-{oid}"
        shutil.move(path, moved)
        yield (
            f"{name}: its object in the cache is corrupt, moved to {moved}; no stage writes this file: "
            "restore it by `dvc pull` from a remote, from a backup, or from the moved file"
        )
    else:
        path.unlink()
        yield f"{name}: its object in the cache is corrupt, removed; `dvc repro` writes it again"


def _restore_metrics(out: Any, root: Path) -> bool:
    """Restore a metrics file from the run cache or the last commit. Return whether one of them has it."""
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

RECHECK_DELAY_S = 0.5
"""Seconds before files are checked again; DVC takes a tenth of that to write its largest file."""


def find_corrupt_files(root: Path) -> list[str]:
    """Return a line for each corrupt file that would make DVC or a stage fail. No files are hashed."""
    corrupt_files = _find_corrupt_files(root)
    if corrupt_files:  # DVC may be writing them at this moment
        time.sleep(RECHECK_DELAY_S)
        corrupt_files = [line for line in _find_corrupt_files(root) if line in corrupt_files]
    return corrupt_files


def _find_corrupt_files(root: Path) -> list[str]:
    return [*find_corrupt_dvc_files(root), *find_corrupt_rwlock(root), *_find_corrupt_metrics(root)]


def repair(root: Path) -> Iterator[str]:
    """Repair the corrupt files of a repository.

    A file that may contain unique data is copied to `.dvc/tmp` first.

    Args:
        root: root of the repository.

    Yields:
        A line for each file that was repaired or cannot be repaired; nothing if no file is corrupt.

    Raises:
        UserError: a DVC command or a stage is running, or this is not a DVC repository.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo

    from sentiment.repository_locks import require_idle

    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        raise UserError(
            f"{root}: not a DVC repository; run this command in the root of the project"
        ) from None
    dvc_tmp = Path(repo.tmp_dir)
    try:
        with repo.lock:  # so that no DVC command starts during the repair
            require_idle(root, holds_dvc_lock=True)
            yield from repair_rwlock(dvc_tmp)
            yield from repair_lock(root, dvc_tmp)
            yield from repair_dvc_files(root)
            yield from repair_leftovers(root, dvc_tmp)
            yield from repair_objects(repo, root)
    except LockError:
        raise UserError(
            f"DVC is running here, or {dvc_tmp / 'lock'} was left by a process on another machine: "
            "wait until it has ended, then start this command again"
        ) from None
    except DvcException as error:
        raise UserError(f"DVC cannot read this repository: {error}") from None
