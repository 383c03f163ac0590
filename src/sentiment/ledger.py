"""The ledger: one line per decision on a model or a batch of rows, in a git branch of its own.

The branch `ledger` has one file, `decisions.jsonl`, and no commit in common with other branches. Commits are
written with git's plumbing, so that neither the index nor the working tree changes. Two ledgers are united
line by line: of lines with the same key, the first one counts.
"""

import json
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from itertools import chain
from types import UnionType
from typing import Any, Literal, get_args

from sentiment.errors import UserError
from sentiment.files import compute_md5
from sentiment.repository import require_git, run_git

logger = logging.getLogger(__name__)

Outcome = Literal["promote", "nothing_new", "not_better", "cannot_tell", "data_stopped"]
"""Orderly outcomes of a retraining:

`promote`: the new model should become the champion. `nothing_new`: there is no new model, or it was decided
on before. `not_better`: it is no better than the champion, or violates a limit. `cannot_tell`: the test split
cannot decide. `data_stopped`: the new rows exceed a limit of the data gate, so that nothing was trained.
"""

EXIT_STATUSES: dict[Outcome, int] = {
    "promote": 0,
    "nothing_new": 10,
    "not_better": 11,
    "cannot_tell": 12,
    "data_stopped": 13,
}
"""Exit statuses of `sentiment retrain --exit-code`."""

BRANCH = "refs/heads/ledger"
REMOTE = "origin"
REMOTE_BRANCH = f"refs/remotes/{REMOTE}/ledger"
FILE = "decisions.jsonl"

FIELDS = (
    "id",
    "outcome",
    "test",
    "champion",
    "challenger",
    "batch",
    "commit",
    "created",
    "is_look",
    "verdict",
    "reason",
    "details",
)
"""Fields of a line, in order."""

FIELD_TYPES: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("outcome", "reason", "test", "commit", "created"), str),
    **dict.fromkeys(("champion", "challenger", "batch", "verdict"), str | None),
    "is_look": bool,
    "details": Mapping,
}
"""Types of the fields of a line, but for the id."""

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


@dataclass(frozen=True)
class LedgerEntry:
    """A decision on a model or a batch of rows: one line of the ledger.

    The fields of `key` identify it: the same models on the same test split are compared once.

    Attributes:
        outcome: outcome of the retraining; never `nothing_new`, which decides nothing.
        reason: why, in one sentence.
        test: digest of the texts and labels of the test split.
        champion: MD5 of the champion's folder `models/selected`, as in dvc.lock; None for the first champion.
        challenger: the same of the new model; None where the data gate stopped.
        batch: digest of the batch of new rows; None where there is none.
        commit: commit on which the retraining started.
        created: UTC time of the decision, in ISO format.
        is_look: whether the challenger was compared with the champion on the test split.
        verdict: verdict of the model gate, which the tag of a promotion records; None without one.
        details: measurements of the gates, as in `reports/retrain.json`.
    """

    outcome: Outcome
    reason: str
    test: str
    champion: str | None
    challenger: str | None
    batch: str | None
    commit: str
    created: str
    is_look: bool
    verdict: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"{self.outcome}: not an outcome of a retraining")
        # One line, as the message of a tag has it.
        object.__setattr__(self, "reason", " ".join(self.reason.split()))

    @property
    def key(self) -> tuple[str | None, ...]:
        """Test split, champion, and challenger or, where nothing was trained, batch.

        A decision without a look at the test split depends on limits in params.yaml: its key has the outcome
        and the reason, too.
        """
        key = (self.test, self.champion, self.challenger or self.batch)
        return key if self.is_look else (*key, self.outcome, self.reason)

    @property
    def id(self) -> str:
        """MD5 of the key."""
        return compute_md5(json.dumps(self.key).encode())

    def to_dict(self) -> dict[str, Any]:
        """Return id and fields.

        They have a fixed order, details last, so that the scripts in `.github/scripts`, which run without
        Python, find them from the start of a line.
        """
        content = {"id": self.id, **asdict(self)}
        return {name: content[name] for name in FIELDS}

    def to_json(self) -> str:
        """Return the entry as one line of JSON, without the line break."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "LedgerEntry":
        """Parse a line of the ledger. Fields that only a later version of this code knows are ignored.

        Raises:
            ValueError: it is not JSON, is not a decision, or was edited.
        """
        try:
            return cls._from_content(json.loads(line))
        except RecursionError:
            raise ValueError("not a decision: nested too deeply") from None

    @classmethod
    def _from_content(cls, content: object) -> "LedgerEntry":
        if not isinstance(content, dict):
            raise ValueError("not a decision: not a JSON object")  # noqa: TRY004
        known = {item.name for item in fields(cls)}
        try:
            entry = cls(**{name: value for name, value in content.items() if name in known})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a decision: {error}") from None
        entry._require_types()
        if content.get("id", entry.id) != entry.id:
            raise ValueError(f"its id {content['id']} is not that of its models and test split")
        return entry

    def _require_types(self) -> None:
        """Raise ValueError if a field that was read has another type, or cannot be written again."""
        for name, types in FIELD_TYPES.items():
            if not isinstance(getattr(self, name), types):
                raise ValueError(f"not a decision: {name} is {getattr(self, name)!r:.80}")  # noqa: TRY004
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError(f"not a decision: created has no time zone: {self.created}")
        self.to_json().encode()


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
        _fetch()
        old, remote = _resolve(BRANCH), _resolve(REMOTE_BRANCH)
        lines = unite(_read_lines(remote), _read_lines(old))
        _parse(lines)
        if lines == _read_lines(remote):
            return
        commit = old
        if commit is None or lines != _read_lines(old) or (remote and not _is_ancestor(remote, commit)):
            commit = _commit(lines, [old, remote], f"Unite with the ledger of {REMOTE}")
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


def _fetch() -> None:
    """Fetch origin's branch by its name, since a clone of a single branch, as on CI services, lacks it."""
    if run_git("remote", "get-url", REMOTE) is None:
        return
    try:
        listed = require_git("ls-remote", REMOTE, BRANCH, timeout_s=TIMEOUT_S).split()
        if listed and listed[0] != _resolve(REMOTE_BRANCH):
            refspec = f"+{BRANCH}:{REMOTE_BRANCH}"
            require_git("fetch", "--quiet", "--no-tags", REMOTE, refspec, timeout_s=TIMEOUT_S)
    except UserError as error:
        logger.warning("cannot fetch the ledger of %s: %s; decisions made elsewhere may lack", REMOTE, error)


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
