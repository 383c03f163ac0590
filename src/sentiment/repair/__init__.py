"""Repairs what a kill, a full disk or a power cut left half written: DVC's own files, its cache, ours.

DVC opens `dvc.lock` and `.dvc/tmp/rwlock` for writing in place, so a process that dies meanwhile leaves them
empty or truncated, and every later DVC command stops at them.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from sentiment.errors import UserError
from sentiment.repair import leftovers, lockfile, rwlock

REPAIR_HINT = "run `sentiment repair`"

WRITING_S = 0.5
"""DVC takes a tenth of that to write its largest file."""


def suspects(root: Path) -> list[str]:
    """Return, one line each, which files DVC or a stage would stop at. Fast: nothing is hashed."""
    found = _suspects(root)
    if found:  # DVC may be writing just now
        time.sleep(WRITING_S)
        found = [line for line in _suspects(root) if line in found]
    return found


def _suspects(root: Path) -> list[str]:
    return [*lockfile.suspects(root), *rwlock.suspects(root), *leftovers.suspects(root)]


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

    from sentiment.repair.objects import repair_objects
    from sentiment.running import require_idle

    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        raise UserError(f"{root}: no DVC repository; run this at the root of the project") from None
    tmp = Path(repo.tmp_dir)
    try:
        with repo.lock:  # so that no DVC command starts meanwhile
            require_idle(root, holds_dvc_lock=True)
            yield from rwlock.repair_rwlock(tmp)
            yield from lockfile.repair_lock(root, tmp)
            yield from lockfile.repair_dvc_files(root)
            yield from leftovers.repair_leftovers(root, tmp)
            yield from repair_objects(repo, root)
    except LockError:
        raise UserError(
            f"DVC is at work here, or {tmp / 'lock'} is left from a process on another machine: "
            "wait until it ends, then start this again"
        ) from None
    except DvcException as error:
        raise UserError(f"DVC cannot read this repository: {error}") from None
