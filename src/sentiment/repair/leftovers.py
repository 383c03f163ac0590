"""Files that a process had not finished when it died: temporary ones, and metrics and a journal cut off."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths

OURS = re.compile(r"\..+\.partial(-journal)?")
"""Made by `outputs.replacing`, and by sqlite beside a store that is being made."""

DVCS = re.compile(r"\.[\w-]{22}\.tmp")
"""Made by DVC beside what it copies to a cache or a working tree."""

PLACES = (paths.CHECKPOINTS, paths.JOURNAL.parent, paths.STUDIES, paths.REPORTS)
"""Where stages write besides their outputs."""


def suspects(root: Path) -> list[str]:
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
