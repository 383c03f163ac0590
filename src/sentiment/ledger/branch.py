"""The git branch of the ledger: reads, appends, unites and pushes its lines.

The branch `ledger` has one file, `decisions.jsonl`, and no commit in common with other branches. Commits are
written with git's plumbing, so that neither the index nor the working tree changes. Two ledgers are united
line by line: of lines with the same key, the first one counts.
"""

import logging
import random
import time
from collections.abc import Iterable, Sequence
from itertools import chain

from sentiment.errors import UserError
from sentiment.ledger.entry import LedgerEntry
from sentiment.repository import require_git, run_git

logger = logging.getLogger(__name__)

BRANCH = "refs/heads/ledger"
REMOTE = "origin"
REMOTE_BRANCH = f"refs/remotes/{REMOTE}/ledger"
FILE = "decisions.jsonl"

TIMEOUT_S = 30
"""Seconds after which the remote counts as unreachable."""

LOCAL_ATTEMPTS, PUSH_ATTEMPTS = 60, 5
"""Attempts to write the branch if other processes write it at the same moment, here and at origin."""

DEFAULT_IDENTITY = {
    f"GIT_{role}_{name}": value
    for role in ("AUTHOR", "COMMITTER")
    for name, value in (("NAME", "sentiment retrain"), ("EMAIL", "retrain@localhost"))
}
"""Author of a commit where git knows none, as on a runner of a CI service."""


def read_ledger() -> list[LedgerEntry]:
    """Return the decisions in this repository and at origin, by time.

    Origin's branch is fetched first. Without a remote `origin`, the local branch counts; if origin cannot be
    reached, a warning is logged, and what was fetched last counts.

    Raises:
        UserError: a line cannot be read, or the branch is not a ledger.
    """
    _fetch()
    return _parse(unite(_read_lines(REMOTE_BRANCH), _read_lines(BRANCH)))


def append(entry: LedgerEntry) -> bool:
    """Add a decision to the local branch.

    Args:
        entry: the decision.

    Returns:
        False if the ledger has a decision with this key already, which then counts.

    Raises:
        UserError: the branch cannot be read or written.
    """
    error = None
    for _ in range(LOCAL_ATTEMPTS):
        old = _resolve(BRANCH)
        known = unite(_read_lines(REMOTE_BRANCH), _read_lines(old))
        lines = unite(known, [entry.to_json()])
        if len(lines) == len(known):
            return False
        commit = _commit(lines, [old, _resolve(REMOTE_BRANCH)], f"Decide: {entry.outcome}")
        error = _move_branch(old, commit)
        if error is None:
            return True
        time.sleep(random.uniform(0, 0.05))  # noqa: S311
    raise UserError(f"cannot append to the branch ledger: {error}")


def push_ledger() -> None:
    """Unite the local branch with origin's and push it.

    Raises:
        UserError: a line cannot be read, or the push failed. The local branch then has the decisions.
    """
    for _ in range(PUSH_ATTEMPTS):
        error = None
        remote, old = _fetch(), _resolve(BRANCH)
        fetched = _resolve(REMOTE_BRANCH)  # also if the branch has been deleted at origin since then
        lines = unite(_read_lines(fetched), _read_lines(old))
        _parse(lines)
        if lines == _read_lines(remote):
            return
        commit = old
        if commit is None or lines != _read_lines(old) or (fetched and not _is_ancestor(fetched, commit)):
            commit = _commit(lines, [old, fetched], f"Unite with the ledger of {REMOTE}")
            error = _move_branch(old, commit)
        if error is None:
            error = _push(commit)
        if error is None:
            return
        time.sleep(random.uniform(0, 1))  # noqa: S311
    raise UserError(
        f"the branch ledger could not be pushed: {error}\nThe local branch has the decisions; "
        f"`git push {REMOTE} ledger` publishes them"
    )


def _push(commit: str) -> str | None:
    """Push a commit to origin's branch; return git's message if it fails."""
    try:
        require_git("push", "--quiet", REMOTE, f"{commit}:{BRANCH}", timeout_s=TIMEOUT_S)
    except UserError as error:
        return str(error)
    return None


def unite(*ledgers: Iterable[str]) -> list[str]:
    """Return the lines of several ledgers; of lines with the same key, the first one.

    Lines stay as they are, so that fields of a later version are not lost.
    """
    united: dict[str, str] = {}
    for line in chain(*ledgers):
        united.setdefault(_read_id(line), line)
    return list(united.values())


def count_looks(entries: Iterable[LedgerEntry], test: str) -> int:
    """Return how many challengers were compared with a champion on a test split.

    Args:
        entries: the ledger.
        test: MD5 of the test split.
    """
    return sum(entry.is_look and entry.test == test for entry in entries)


def find_promotion(
    entries: Sequence[LedgerEntry], champion: str | None, challenger: str
) -> LedgerEntry | None:
    """Return the newest decision on a model and a champion if it is to promote the model; None otherwise.

    An older decision, made on another test split, does not count.

    Args:
        entries: the ledger, by time.
        champion: MD5 of the champion's folder; None for the first champion.
        challenger: MD5 of the new model's folder.
    """
    found = [entry for entry in entries if (entry.champion, entry.challenger) == (champion, challenger)]
    return found[-1] if found and found[-1].outcome == "promote" else None


def _read_id(line: str) -> str:
    """Return the id of a line, or the line itself if it cannot be read."""
    try:
        return LedgerEntry.from_json(line).id
    except ValueError:
        return line


def _parse(lines: Iterable[str]) -> list[LedgerEntry]:
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(LedgerEntry.from_json(line))
        except ValueError as error:
            raise UserError(
                f"{FILE} of the branch ledger, line {number}: {error}. Update this code if a later version "
                "wrote the line; otherwise commit a corrected file to the branch"
            ) from None
    return sorted(entries, key=lambda entry: (entry.created, entry.id))


def _fetch() -> str | None:
    """Fetch origin's branch by its name, since a clone of a single branch, as on CI services, lacks it.

    Returns:
        Commit of the branch at origin, as fetched last if origin cannot be reached; None if origin has no
        such branch, or no longer.
    """
    if run_git("remote", "get-url", REMOTE) is None:
        return None
    try:
        listed = require_git("ls-remote", REMOTE, BRANCH, timeout_s=TIMEOUT_S).split()
        if listed and listed[0] != _resolve(REMOTE_BRANCH):
            refspec = f"+{BRANCH}:{REMOTE_BRANCH}"
            require_git("fetch", "--quiet", "--no-tags", REMOTE, refspec, timeout_s=TIMEOUT_S)
    except UserError as error:
        logger.warning(
            "cannot fetch the ledger of %s: %s; decisions made elsewhere may be missing", REMOTE, error
        )
        return _resolve(REMOTE_BRANCH)
    return _resolve(REMOTE_BRANCH) if listed else None


def _resolve(reference: str) -> str | None:
    output = run_git("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    return output.decode().strip() if output else None


def _read_lines(reference: str | None) -> list[str]:
    """Return the lines of the file in a commit; none if the commit does not exist."""
    commit = reference and _resolve(reference)
    if not commit:
        return []
    content = run_git("cat-file", "blob", f"{commit}:{FILE}")
    if content is None:
        raise UserError(
            f"the branch ledger (commit {commit[:7]}) has no file {FILE}: another branch has its name; "
            "rename that branch"
        )
    return [line for line in content.decode(errors="replace").split("\n") if line.strip()]


def _commit(lines: Iterable[str], parents: Iterable[str | None], message: str) -> str:
    """Write a commit with the lines, whose parents are the newest of some commits; return its hash."""
    content = "".join(f"{line}\n" for line in lines)
    blob = require_git("hash-object", "-w", "--stdin", message=content).strip()
    tree = require_git("mktree", message=f"100644 blob {blob}\t{FILE}\n").strip()
    commits = list(dict.fromkeys(filter(None, parents)))
    newest = [
        commit
        for commit in commits
        if not any(commit != other and _is_ancestor(commit, other) for other in commits)
    ]
    options = [option for commit in newest for option in ("-p", commit)]
    environment = {} if run_git("var", "GIT_COMMITTER_IDENT") else DEFAULT_IDENTITY
    return require_git("commit-tree", *options, "-m", message, tree, environment=environment).strip()


def _is_ancestor(commit: str, other: str) -> bool:
    return run_git("merge-base", "--is-ancestor", commit, other) is not None


def _move_branch(old: str | None, commit: str) -> str | None:
    """Move the local branch; return git's message if it fails, as when another process moved it."""
    try:
        require_git("update-ref", "-m", "ledger", BRANCH, commit, old or "0" * len(commit))
    except UserError as error:
        return str(error)
    return None
