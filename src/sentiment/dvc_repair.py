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


def suspect_rwlocks(root: Path) -> list[str]:
    """Return what is wrong with the file, if anything is."""
    path = root / ".dvc" / "tmp" / RWLOCK
    return [f"{path.relative_to(root)}: truncated or corrupt"] if _entries(path) is None else []


def repair_rwlock(tmp: Path) -> Iterator[str]:
    """Remove the file where it is damaged or names processes: none of them is alive, as the caller knows."""
    from sentiment.repository import read_rwlock_holders  # psutil, which `suspect_rwlocks` has no use for

    path = tmp / RWLOCK
    if _entries(path) is None:
        path.unlink()
        yield f"{path.name}: truncated or corrupt, removed; DVC writes it anew"
    elif dead := read_rwlock_holders(path):
        path.unlink()
        pids = sorted({info["pid"] for info in dead})
        yield f"{path.name}: locks of processes that are dead ({', '.join(map(str, pids))}), removed"


def _entries(path: Path) -> dict[str, Any] | None:
    """Return what the file holds, nothing where there is no file; None where DVC would refuse it."""
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
"""Where a stage's entry begins in what DVC writes."""


def suspect_dvc_files(root: Path) -> list[str]:
    """Return what is wrong with dvc.lock and `.dvc` files, if anything is."""
    found = damage(root / paths.LOCK)
    broken = [path for path in _dvc_files(root) if not _is_dvc_file(path.read_bytes())]
    files = [f"{path.relative_to(root)}: truncated or corrupt" for path in broken]
    return [f"{paths.LOCK}: {found}", *files] if found else files


def damage(path: Path) -> str | None:
    """Return why DVC cannot have written a lock file as it is; None where it can, or there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if not content.strip():
        return "empty"
    if not content.endswith(b"\n"):
        return "truncated: its last line has no end"
    try:
        stages = _validated(content.decode()).get("stages", {})
    except ValueError:
        return "truncated or corrupt"
    if not all(map(_has_its_figures, stages.values())):
        return "truncated: an output has no size"
    return None


def _has_its_figures(stage: dict[str, Any]) -> bool:
    """Whether outputs have their sizes, without which DVC would take them for what they are all the same."""
    outputs = [out for out in stage.get("outs", ()) if "md5" in out]
    return all("size" in out and ("nfiles" in out or not out["md5"].endswith(".dir")) for out in outputs)


def repair_lock(root: Path, tmp: Path) -> Iterator[str]:
    """Rebuild a damaged dvc.lock; a copy of the damaged one stays in `tmp`."""
    path = root / paths.LOCK
    if (found := damage(path)) is None:
        return
    backup = tmp / "dvc.lock.damaged"
    shutil.copyfile(path, backup)
    kept, before = _stages(path.read_bytes()), _stages(read_committed(str(paths.LOCK), root) or b"")
    if kept and [*kept][-1] not in before:  # cut off somewhere, perhaps where it still parses
        kept.popitem()
    elif kept:
        last, _ = kept.popitem()
        kept[last] = before[last]
    restored = [name for name in before if name not in kept]
    stages = {**kept, **{name: before[name] for name in restored}}
    if stages:
        with atomic_write(path) as temporary:
            temporary.write_text(HEADER + "".join(stages.values()), encoding="utf-8")
    else:
        path.unlink()
    parts = [f"{len(kept)} stages kept"] if kept else []
    parts += [f"{', '.join(restored)} from the last commit"] if restored else []
    yield (
        f"{paths.LOCK}: {found}; {', '.join(parts) or 'removed, since nothing of it was whole'}. "
        f"`dvc repro` restores from its run cache what it lacks (damaged file: {backup.relative_to(root)})"
    )


def repair_dvc_files(root: Path) -> Iterator[str]:
    """Restore damaged `.dvc` files from the last commit; those that it lacks are named."""
    for path in _dvc_files(root):
        if _is_dvc_file(path.read_bytes()):
            continue
        name = path.relative_to(root).as_posix()
        before = read_committed(name, root)
        if before is not None and _is_dvc_file(before):
            with atomic_write(path) as temporary:
                temporary.write_bytes(before)
            yield f"{name}: truncated or corrupt, restored from the last commit"
        else:
            path.unlink()
            data = name.removesuffix(".dvc")
            yield f"{name}: truncated or corrupt, never committed, removed; `dvc add {data}` writes it anew"


def _stages(content: bytes) -> dict[str, str]:
    """Return the text of each stage's entry that is whole by itself, in order."""
    found = {}
    text = content.decode(errors="replace")
    for block in STAGE.split(text.partition("stages:\n")[2])[1:]:
        entry = f"  {block}"
        try:
            (name,) = _validated(HEADER + entry)["stages"]
        except ValueError:
            continue
        found[name] = entry
    return found


def _validated(text: str) -> dict[str, Any]:
    """Return what a lock file holds. Raises ValueError where DVC would refuse it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        content: dict[str, Any] = COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
    except (YAMLError, Invalid) as error:
        raise ValueError(str(error)) from None
    return content


def _dvc_files(root: Path) -> list[Path]:
    """Return the `.dvc` files that git tracks or would track."""
    names = list_files("--cached", "--others", "--exclude-standard", "--", "*.dvc", root=root)
    return [root / name for name in names if (root / name).is_file()]


def _is_dvc_file(content: bytes) -> bool:
    from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA
    from voluptuous import Invalid

    try:
        return bool(COMPILED_SINGLE_STAGE_SCHEMA(YAML(typ="safe").load(content.decode())))
    except (UnicodeDecodeError, YAMLError, Invalid):
        return False
