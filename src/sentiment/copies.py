"""Experiments that DVC runs in a copy of the repository, and what such a copy lacks."""

import os
from collections.abc import Iterator
from pathlib import Path

from sentiment import paths
from sentiment.errors import UserError
from sentiment.git import listed
from sentiment.settings import repository_root

PIN = ".dvc"
"""How the name of a file ends that records what DVC tracks."""


def incoming_files(root: Path = Path()) -> list[str]:
    """Return the data files in `data/incoming` below `root`, in order of name, as paths relative to `root`.

    Hidden files, `.dvc` files and the README are no data.
    Raises UserError where a subfolder is a symbolic link: DVC would not see what changes behind it.
    """
    found = []
    for folder, subfolders, files in os.walk(root / paths.INCOMING):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in subfolders:
            if (root / inside / name).is_symlink():
                raise UserError(
                    f"{inside / name}: a link to a folder, behind which DVC sees no change; "
                    "put the files themselves here, or links to files"
                )
        names = (inside / name for name in files if not name.startswith(".") and not name.endswith(PIN))
        found += [path.as_posix() for path in names if path != paths.INCOMING / "README.md"]
    return sorted(found)


def require_incoming_in_copy() -> None:
    """Raise UserError where this is an experiment's copy without files that the user has in `data/incoming`.

    `dvc exp run --temp` and `--queue` copy what git and DVC know. The pipeline would find that nothing has
    changed and train on less than the user sees in the folder. Every stage asks, since download may not run.
    What was committed after the experiment was queued is rightly not in its copy.
    """
    root = repository_root()
    if root == Path.cwd().resolve():
        return
    here, known = set(incoming_files()), set(listed("--", str(paths.INCOMING), root=root))
    faults = []
    for name in incoming_files(root):
        if name not in here and not any(path in known for path in _committed_as(name)):
            faults.append(f"{name}: known to neither git nor DVC")
    if faults:
        raise UserError(
            "\n  ".join(
                [
                    "this experiment runs in a copy of the repository, in which data/incoming lacks:",
                    *faults,
                    "`git add` such a file, or `dvc add` it and `git add` its .dvc file; or name it by DVC's "
                    "`--copy-paths`; or leave out `--temp` and `--queue`",
                ]
            )
        )


def _committed_as(name: str) -> Iterator[str]:
    """Yield what git may know a file as: itself, its `.dvc` file, or that of a folder around it."""
    yield name
    for tracked in (Path(name), *Path(name).parents):
        if tracked == paths.INCOMING:
            return
        yield tracked.with_name(tracked.name + PIN).as_posix()
