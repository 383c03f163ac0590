"""What git says about the repository; None where there is no git, no repository or no commit."""

import os
import subprocess
from pathlib import Path


def git(*arguments: str, root: Path | None = None) -> bytes | None:
    """Return what a git command prints, None where it fails.

    Args:
        arguments: of git.
        root: folder that it runs in, by default the working directory.
    """
    # A status that refreshes the index would take its lock from DVC or the user.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def committed(name: str, root: Path | None = None) -> bytes | None:
    """Return the content that a file below `root` has in the last commit, None where that lacks it."""
    return git("show", f"HEAD:./{name}", root=root)


def listed(*arguments: str, root: Path | None = None) -> list[str]:
    """Return the paths that `git ls-files` names, none where it fails."""
    found = git("ls-files", "-z", *arguments, root=root) or b""
    return [os.fsdecode(name) for name in found.split(b"\0") if name]
