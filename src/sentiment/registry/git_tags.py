"""Registry in git: versions and stages of the artifact `sentiment`, as annotated tags in GTO's convention.

`sentiment@v2.0.0` registers a version; `sentiment#champion#3` assigns the stage `champion` to the version at
its commit. `dvc artifacts get` reads the same tags. The tags are read and written with git itself: the `gto`
library leaves the order of tags of the same second open, and cannot push two tags atomically.
"""

import re
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sentiment.errors import UserError
from sentiment.repository import require_git

ARTIFACT = "sentiment"
"""Name of the artifact in `dvc.yaml`."""

CHAMPION = "champion"
"""Stage of the version that is in use."""

ARTIFACT_MD5 = "Artifact-MD5"
"""Detail of a tag: MD5 of the folder `models/selected` in `dvc.lock`."""

LEDGER_ID = "Ledger-ID"
"""Detail of a tag: id of the decision of the ledger that promoted the model."""

TAG_PATTERNS = tuple(f"refs/tags/{ARTIFACT}{separator}*" for separator in "@#")
TAG_NAME = re.compile(
    rf"{ARTIFACT}(?:@v(?P<version>\d+\.\d+\.\d+)|#(?P<stage>[A-Za-z0-9][\w/-]*))(?P<cancelled>!?)"
    r"(?:#(?P<counter>\d+))?"
)
"""Names of registry tags. Versions with a pre-release or build suffix are not supported."""

FIELDS = (
    "refname:strip=2",
    "*objecttype",
    "*objectname",
    "taggername",
    "taggeremail:trim",
    "taggerdate:unix",
    "contents:subject",
    "contents:body",
)
"""Fields that are read of a tag; `*` is the object that it points to."""

DETAIL = re.compile(r"([A-Z][\w-]*): (.*)")


@dataclass(frozen=True)
class RegistryTag:
    """An annotated tag of the registry.

    Attributes:
        name: name of the tag.
        commit: commit that it points to.
        author: name and e-mail address of the person who created it.
        created: when it was created.
        subject: first line of its message.
        details: lines `Key: value` of its message.
    """

    name: str
    commit: str
    author: str
    created: datetime
    subject: str
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it was created: the detail `Reason`; the subject if another program created it."""
        return self.details.get("Reason", self.subject)

    @property
    def version(self) -> tuple[int, ...] | None:
        """The version that it registers or deregisters, such as (2, 0, 0)."""
        version = self._match["version"]
        return tuple(map(int, version.split("."))) if version else None

    @property
    def stage(self) -> str | None:
        """The stage that it assigns or unassigns."""
        return self._match["stage"]

    @property
    def is_cancellation(self) -> bool:
        """Whether it deregisters a version or unassigns a stage."""
        return bool(self._match["cancelled"])

    @property
    def counter(self) -> int:
        """Number at the end of the name, which makes the names of assignments unique."""
        return int(self._match["counter"] or 0)

    @property
    def _match(self) -> re.Match[str]:
        match = TAG_NAME.fullmatch(self.name)
        if match is None:  # `read_tags` skips other tags
            raise ValueError(f"{self.name}: not a tag of the registry")
        return match


def read_tags() -> list[RegistryTag]:
    """Read the registry's tags from the local repository, oldest first.

    Like GTO, this ignores lightweight tags, which have neither author nor date.

    Raises:
        UserError: git is not installed, or this is not a git repository.
    """
    # The fields are separated by NUL, which no message contains.
    output = require_git(
        "for-each-ref", f"--format={''.join(f'%({name})%00' for name in FIELDS)}", *TAG_PATTERNS
    )
    values = output.split("\0")[:-1]
    tags = []
    for start in range(0, len(values), len(FIELDS)):
        name, kind, commit, author, email, created, subject, body = values[start : start + len(FIELDS)]
        name = name.removeprefix("\n")  # which ends the previous tag
        if kind == "commit" and TAG_NAME.fullmatch(name):
            matches = (DETAIL.fullmatch(line) for line in body.splitlines())
            details = {match[1]: match[2] for match in matches if match}
            date = datetime.fromtimestamp(int(created), UTC)
            tags.append(RegistryTag(name, commit, f"{author} <{email}>", date, subject, details))
    return sorted(tags, key=lambda tag: (tag.created, tag.counter))


def require_free_names(names: Iterable[str]) -> None:
    """Raise UserError if a tag exists that `read_tags` ignores, so that it has the name of a new one.

    Args:
        names: names of tags to create.

    Raises:
        UserError: a tag exists. The message has the commands that remove it.
    """
    existing = set(require_git("for-each-ref", "--format=%(refname:strip=2)", *TAG_PATTERNS).splitlines())
    if taken := [name for name in names if name in existing]:
        raise UserError(
            f"{', '.join(taken)}: exists as a tag without author, date and message (`git tag` without "
            "`--annotate`), which is not part of the registry. Remove it with "
            f"`{shlex.join(['git', 'tag', '--delete', *taken])}`, and if it was pushed with "
            f"`{shlex.join(['git', 'push', 'origin', '--delete', *taken])}`, and try again"
        )


def create_tag(name: str, commit: str, subject: str, details: Mapping[str, str], *, after: int) -> int:
    """Create an annotated tag. It is signed if git's configuration requires it.

    Args:
        name: name of the tag.
        commit: commit that it points to.
        subject: first line of the message.
        details: lines `Key: value` of the message; white space in a value is collapsed.
        after: Unix time of the registry's newest tag. Since `dvc artifacts get` takes the newest by its date
            in seconds, a new tag is dated at least one second later, even if a clock is wrong.

    Returns:
        Unix time of the tag.

    Raises:
        UserError: the tag exists, or git does not know the author.
    """
    created = max(int(time.time()), after + 1)
    lines = [f"{key}: {' '.join(value.split())}" for key, value in details.items()]
    require_git(
        "tag",
        "--annotate",
        "--cleanup=verbatim",
        "--file=-",
        name,
        commit,
        message="\n".join([subject, "", *lines, ""]),
        environment={"GIT_COMMITTER_DATE": f"@{created} +0000"},
    )
    return created


def resolve_commit(revision: str) -> str:
    """Return the hash of the commit that a git revision names.

    Raises:
        UserError: there is no such commit, git is not installed, or this is not a git repository.
    """
    require_git("rev-parse", "--git-dir")
    try:
        return require_git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
        ).strip()
    except UserError:
        raise UserError(f"{revision}: no such git revision") from None
