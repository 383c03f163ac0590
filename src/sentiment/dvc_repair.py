"""Repair of DVC's own state: `dvc.lock`, `.dvc` files and `.dvc/tmp/rwlock`."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.files import atomic_write
from sentiment.repository import list_files, read_committed

RWLOCK = "rwlock"


def find_corrupt_rwlock(root: Path) -> list[str]:
    """Return a line if DVC's read-write lock is corrupt, else an empty list."""
    path = root / ".dvc" / "tmp" / RWLOCK
    return [f"{path.relative_to(root)}: truncated or corrupt"] if _read_rwlock(path) is None else []


def repair_rwlock(dvc_tmp: Path) -> Iterator[str]:
    """Remove DVC's read-write lock if it is corrupt or lists processes, all of which must be dead."""
    # Not at the top: it imports psutil, which `find_corrupt_rwlock` does not need.
    from sentiment.repository_locks import read_rwlock_holders

    path = dvc_tmp / RWLOCK
    if _read_rwlock(path) is None:
        path.unlink()
        yield f"{path.name}: truncated or corrupt, removed; DVC writes a new one"
    elif dead_holders := read_rwlock_holders(path):
        path.unlink()
        pids = sorted({info["pid"] for info in dead_holders})
        yield f"{path.name}: locks of processes that are dead ({', '.join(map(str, pids))}), removed"


def _read_rwlock(path: Path) -> dict[str, Any] | None:
    """Return the content of the lock: empty if there is no file, None if DVC cannot read the file."""
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        content: dict[str, Any] = SCHEMA(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, Invalid):
        return None
    return content


HEADER = "schema: '2.0'\nstages:\n"
STAGE = re.compile(r"^  (?=[^\s#-].*:\n)", re.MULTILINE)
"""Start of a stage's entry in a dvc.lock that DVC wrote."""


def find_corrupt_dvc_files(root: Path) -> list[str]:
    """Return a line for each corrupt file among dvc.lock and the `.dvc` files."""
    corruption = describe_corruption(root / paths.LOCK)
    corrupt = [path for path in _list_dvc_files(root) if not _is_valid_dvc_file(path.read_bytes())]
    files = [f"{path.relative_to(root)}: truncated or corrupt" for path in corrupt]
    return [f"{paths.LOCK}: {corruption}", *files] if corruption else files


def describe_corruption(path: Path) -> str | None:
    """Describe how a lock file is corrupt; return None if it is valid or does not exist."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if not content.strip():
        return "empty"
    if not content.endswith(b"\n"):
        return "truncated: its last line has no end"
    try:
        stages = _parse_lock(content.decode()).get("stages", {})
    except ValueError:
        return "truncated or corrupt"
    if not all(map(_has_sizes, stages.values())):
        return "truncated: an output has no size"
    return None


def _has_sizes(stage: dict[str, Any]) -> bool:
    """Return whether all outputs have sizes. DVC itself accepts a stage without them."""
    outputs = [out for out in stage.get("outs", ()) if "md5" in out]
    return all("size" in out and ("nfiles" in out or not out["md5"].endswith(".dir")) for out in outputs)


def repair_lock(root: Path, dvc_tmp: Path) -> Iterator[str]:
    """Back up a corrupt dvc.lock to `dvc_tmp`; rebuild it from its complete stages and the last commit."""
    path = root / paths.LOCK
    if (corruption := describe_corruption(path)) is None:
        return
    backup = dvc_tmp / "dvc.lock.corrupt"
    shutil.copyfile(path, backup)
    retained, committed = (
        _parse_stages(path.read_bytes()),
        _parse_stages(read_committed(str(paths.LOCK), root) or b""),
    )
    if retained and [*retained][-1] not in committed:  # a truncated entry may still be valid YAML
        retained.popitem()
    elif retained:
        last, _ = retained.popitem()
        retained[last] = committed[last]
    restored = [name for name in committed if name not in retained]
    stages = {**retained, **{name: committed[name] for name in restored}}
    if stages:
        with atomic_write(path) as temporary:
            temporary.write_text(HEADER + "".join(stages.values()), encoding="utf-8")
    else:
        path.unlink()
    parts = [f"{len(retained)} stages retained"] if retained else []
    parts += [f"{', '.join(restored)} from the last commit"] if restored else []
    yield (
        f"{paths.LOCK}: {corruption}; {', '.join(parts) or 'removed, since no stage was complete'}. "
        f"`dvc repro` restores missing stages from the run cache (corrupt file: {backup.relative_to(root)})"
    )


def repair_dvc_files(root: Path) -> Iterator[str]:
    """Restore corrupt `.dvc` files from the last commit; remove those that were never committed."""
    for path in _list_dvc_files(root):
        if _is_valid_dvc_file(path.read_bytes()):
            continue
        name = path.relative_to(root).as_posix()
        committed = read_committed(name, root)
        if committed is not None and _is_valid_dvc_file(committed):
            with atomic_write(path) as temporary:
                temporary.write_bytes(committed)
            yield f"{name}: truncated or corrupt, restored from the last commit"
        else:
            path.unlink()
            data = name.removesuffix(".dvc")
            yield f"{name}: truncated or corrupt, never committed, removed; `dvc add {data}` writes it again"


def _parse_stages(content: bytes) -> dict[str, str]:
    """Return the text of each complete stage entry of a lock file, by stage name, in order."""
    entries = {}
    text = content.decode(errors="replace")
    for block in STAGE.split(text.partition("stages:\n")[2])[1:]:
        entry = f"  {block}"
        try:
            (name,) = _parse_lock(HEADER + entry)["stages"]
        except ValueError:
            continue
        entries[name] = entry
    return entries


def _parse_lock(text: str) -> dict[str, Any]:
    """Return the content of a lock file.

    Raises:
        ValueError: DVC cannot read the file.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        content: dict[str, Any] = COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
    except (YAMLError, Invalid) as error:
        raise ValueError(str(error)) from None
    return content


def _list_dvc_files(root: Path) -> list[Path]:
    """Return the `.dvc` files that git tracks, or that are untracked and not ignored."""
    names = list_files("--cached", "--others", "--exclude-standard", "--", "*.dvc", root=root)
    return [root / name for name in names if (root / name).is_file()]


def _is_valid_dvc_file(content: bytes) -> bool:
    from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA
    from voluptuous import Invalid

    try:
        return bool(COMPILED_SINGLE_STAGE_SCHEMA(YAML(typ="safe").load(content.decode())))
    except (UnicodeDecodeError, YAMLError, Invalid):
        return False
