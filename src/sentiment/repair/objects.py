"""Outputs that dvc.lock names: objects of the cache that are damaged, files that are gone.

DVC makes an object of its cache read-only when it is written and never reads it again to check it; after a
power cut its content may be cut off all the same.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentiment.git import committed
from sentiment.hashing import content_md5, file_md5
from sentiment.outputs import replacing
from sentiment.repair.leftovers import is_damaged

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
    if not path.is_file() or file_md5(path) == right:
        return
    if workspace.is_file() and file_md5(workspace) == right:
        with replacing(path) as temporary:
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
    candidates += [committed(out.def_path, root) or b""]
    for content in candidates:
        if content_md5(content) == out.hash_info.value:
            with replacing(Path(out.fs_path)) as temporary:
                temporary.write_bytes(content)
            return True
    return False
