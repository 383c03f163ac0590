"""The git repository: its files and commits, and the copies of DVC experiments."""

import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from sentiment import paths
from sentiment.errors import UserError
from sentiment.settings import repository_root

logger = logging.getLogger(__name__)

EXPERIMENTS = "refs/exps"
"""Namespace of the commits of DVC's experiments; the name is the last part."""

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"/?#]*)([^\s'\"?#]*)([^\s'\"]*)")
"""A URL in a message: scheme, host with user, path, query with fragment."""


def run_git(*arguments: str, root: Path | None = None) -> bytes | None:
    """Run a git command and return its output, or None if it fails.

    Args:
        arguments: arguments of the git command, such as "show", "HEAD".
        root: folder in which to run it; by default the working directory.
    """
    # `git status` would lock the index to refresh it, and a git command of DVC or the user would then fail.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        process = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, check=True, env=environment
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout


def require_git(
    *arguments: str,
    message: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a git command, without prompts, and return its output.

    Args:
        arguments: arguments of the git command.
        message: standard input.
        environment: additional environment variables.
        timeout_s: time limit in seconds.

    Raises:
        UserError: git is not installed, or the command failed or took too long, with git's own message.
    """
    variables = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        process = subprocess.run(
            ["git", *arguments],
            env={**variables, **(environment or {})},
            input=message or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"git {arguments[0]}: no answer within {timeout_s} s") from None
    except OSError as error:
        raise UserError(f"cannot run git, in which the registry and the ledger are: {error}") from None
    if process.returncode != 0:
        error_message = redact_urls(process.stderr.strip())
        raise UserError(error_message or f"git {arguments[0]} exited with {process.returncode}")
    return process.stdout


def redact_urls(text: str) -> str:
    """Remove user, password, query and fragment from the URLs in a message of git: they may have a token."""
    return URL.sub(_redact_url, text)


def _redact_url(match: re.Match[str]) -> str:
    scheme, host, path, query = match.groups()
    if "@" in path + query:  # a password may contain a slash or a question mark
        return f"{scheme}…"
    return f"{scheme}{host.rpartition('@')[2]}{path}"


def get_commit(revision: str = "HEAD") -> str | None:
    """Return the commit of a revision or of a DVC experiment; None if there is none."""
    if revision.startswith("-"):
        return None
    output = run_git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if output is None:
        listed = (run_git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b"").decode()
        names = {line.rpartition("/")[2]: line.partition(" ")[0] for line in listed.splitlines()}
        return names.get(revision)
    return output.decode().strip()


def is_revision(name: str) -> bool:
    """Return whether a name is that of a commit, branch, tag or DVC experiment."""
    return get_commit(name) is not None


def warn_about_revision(name: str, used: str) -> None:
    """Warn if a name is also that of a git revision.

    Args:
        name: name that the user gave.
        used: what else it names, which is used, such as "folder".
    """
    if is_revision(name):
        logger.warning(
            "%s names a %s and also a git revision; the %s is used. For the revision, write `heads/%s` "
            "(branch) or `tags/%s` (tag)",
            *(name, used, used, name, name),
        )


def read_committed(name: str, root: Path | None = None) -> bytes | None:
    """Return the content of a file below `root` in the last commit, or None if the commit lacks the file."""
    return run_git("show", f"HEAD:./{name}", root=root)


def list_files(*arguments: str, root: Path | None = None) -> list[str]:
    """Return the paths that `git ls-files` prints; an empty list if it fails."""
    output = run_git("ls-files", "-z", *arguments, root=root) or b""
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


DVC_SUFFIX = ".dvc"
"""Suffix of the files in which DVC records tracked data."""


def list_incoming_files(root: Path = Path()) -> list[str]:
    """Return the data files in `data/incoming`, sorted, as paths relative to `root`.

    Hidden files, `.dvc` files and the README are not data.

    Raises:
        UserError: a subfolder is a symbolic link; DVC does not detect changes in its target.
    """
    incoming_files = []
    for folder, subfolders, files in os.walk(root / paths.INCOMING):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative_folder = Path(folder).relative_to(root)
        for name in subfolders:
            if (root / relative_folder / name).is_symlink():
                raise UserError(
                    f"{relative_folder / name}: a symbolic link to a folder: DVC does not detect changes in "
                    "it; put the files themselves here, or links to files"
                )
        names = (
            relative_folder / name
            for name in files
            if not name.startswith(".") and not name.endswith(DVC_SUFFIX)
        )
        incoming_files += [path.as_posix() for path in names if path != paths.INCOMING / "README.md"]
    return sorted(incoming_files)


def require_incoming_in_copy() -> None:
    """Raise UserError if the copy of an experiment lacks files of the user's `data/incoming`.

    `dvc exp run --temp` and `--queue` copy only what git and DVC track. The pipeline would then find nothing
    changed and train without the untracked files. Every stage calls this, since DVC may skip download. Files
    committed after the experiment was queued are not part of it and may be missing.

    Raises:
        UserError: untracked files are missing. The message lists all of them.
    """
    root = repository_root()
    if root == Path.cwd().resolve():
        return
    copied, tracked_by_git = set(list_incoming_files()), set(list_files("--", str(paths.INCOMING), root=root))
    missing = []
    for name in list_incoming_files(root):
        if name not in copied and not any(path in tracked_by_git for path in _list_tracked_paths(name)):
            missing.append(f"{name}: tracked by neither git nor DVC")
    if missing:
        raise UserError(
            "\n  ".join(
                [
                    "this experiment runs in a copy of the repository without these files of data/incoming:",
                    *missing,
                    "`git add` such a file, or `dvc add` it and `git add` its .dvc file; or pass it to DVC's "
                    "`--copy-paths`; or run the experiment without `--temp` and `--queue`",
                ]
            )
        )


def _list_tracked_paths(name: str) -> Iterator[str]:
    """Yield the paths by which git may track a file: its own, and the `.dvc` files of it and its parents."""
    yield name
    for tracked in (Path(name), *Path(name).parents):
        if tracked == paths.INCOMING:
            return
        yield tracked.with_name(tracked.name + DVC_SUFFIX).as_posix()
