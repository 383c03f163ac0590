"""`.dvc/tmp/rwlock`: which DVC process reads or writes which path, as JSON that DVC writes in place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RWLOCK = "rwlock"


def suspects(root: Path) -> list[str]:
    """Return what is wrong with the file, if anything is."""
    path = root / ".dvc" / "tmp" / RWLOCK
    return [f"{path.relative_to(root)}: truncated or corrupt"] if _entries(path) is None else []


def repair_rwlock(tmp: Path) -> Iterator[str]:
    """Remove the file where it is damaged or names processes: none of them is alive, as the caller knows."""
    from sentiment.running import rwlock_holders  # psutil, which `suspects` has no use for

    path = tmp / RWLOCK
    if _entries(path) is None:
        path.unlink()
        yield f"{path.name}: truncated or corrupt, removed; DVC writes it anew"
    elif dead := rwlock_holders(path):
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
