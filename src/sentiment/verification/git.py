"""What git knows about a verified commit: changes of the working tree, revisions, tags, history."""

import os
import re
import subprocess

from sentiment import paths
from sentiment.errors import UserError
from sentiment.repository import get_commit, run_git
from sentiment.verification.checks import Check, report_differences

NETWORK_TIMEOUT_S = 20
MAX_COMMITS = 1000
"""Maximum number of commits in which the model of a run or folder is looked up."""


def require_revision(revision: str) -> str:
    """Return the commit of a revision or of a DVC experiment.

    Raises:
        UserError: there is none.
    """
    commit = get_commit(revision) if revision.strip() else None
    if commit is None:
        raise UserError(f"{revision!r}: no git revision and no DVC experiment{describe_shallow_clone()}")
    return commit


def require_commit() -> str:
    """Return the commit of HEAD.

    Raises:
        UserError: there is no git, no repository or no commit.
    """
    commit = get_commit()
    if commit is None:
        raise UserError(
            "git cannot read a commit here: verify compares with what is committed; install git, clone "
            "the repository instead of its archive, or make a first commit"
        )
    return commit


def describe_shallow_clone() -> str:
    """Return a hint with the command that fetches the history; an empty string if it is complete."""
    output = run_git("rev-parse", "--is-shallow-repository")
    if (output or b"").strip() != b"true":
        return ""
    return "; this clone is shallow, `git fetch --unshallow --tags` fetches the other commits"


def check_working_tree(commit: str) -> Check:
    """Check that the working tree, with `dvc.lock`, is that of the commit."""
    output = run_git("status", "--porcelain", "-z", "--untracked-files=all", "--", ".", ":!mlruns") or b""
    names = [os.fsdecode(entry[3:]) for entry in output.split(b"\0") if re.match(rb"[ MTADRCU?!]{2} ", entry)]
    return report_differences(
        "working tree", [f"{name} is not committed" for name in names], f"it is that of commit {commit[:7]}"
    )


def check_tag(name: str) -> Check | None:
    """Check that a tag is where the remote `origin` has it; None if this is no tag, or there is no remote."""
    local = run_git("rev-parse", "--verify", "--quiet", f"refs/tags/{name}")
    if local is None or run_git("remote", "get-url", "origin") is None:
        return None
    try:
        process = subprocess.run(
            ["git", "ls-remote", "origin", f"refs/tags/{name}"],
            capture_output=True,
            check=True,
            timeout=NETWORK_TIMEOUT_S,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return Check("tag", "not known", "origin cannot be reached, so the tag cannot be compared with it")
    remote = process.stdout.split(b"\t")[0]
    if not remote:
        return Check("tag", "not known", f"origin has no tag {name}; `git push origin {name}` publishes it")
    if remote != local.strip():
        return Check(
            "tag",
            "differs",
            "the tag was moved: origin has it at another commit; `git fetch origin --tags --force` takes "
            "that one",
        )
    return Check("tag", "agrees", "origin has it at the same commit")


def find_commits_with(md5: str) -> list[str]:
    """Return the newest commits of all branches, tags and experiments whose `dvc.lock` has an MD5.

    Only commits that changed `dvc.lock` are searched.
    """
    lock = str(paths.LOCK)
    commits = (run_git("log", "--all", "--format=%H", f"-{MAX_COMMITS}", "--", lock) or b"").decode().split()
    found = run_git("grep", "--files-with-matches", "--fixed-strings", md5, *commits, "--", lock)
    return [line.partition(":")[0] for line in (found or b"").decode().splitlines()] if commits else []
