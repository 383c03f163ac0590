"""The registry's tags at origin: comparison with those in this clone, and publication."""

import logging
import shlex

from sentiment.errors import UserError
from sentiment.registry.git_tags import ARTIFACT, CHAMPION, TAG_NAME, TAG_PATTERNS, read_tags
from sentiment.repository import require_git

logger = logging.getLogger(__name__)

REMOTE = "origin"
TIMEOUT_S = 30
"""Seconds after which the remote counts as unreachable."""


def require_complete_tags() -> None:
    """Compare the registry's local tags with those at origin.

    Without this comparison, a clone without tags, as CI services make it, would have no champion. If origin
    does not exist or cannot be reached, a warning is logged and the local tags count.

    Raises:
        UserError: tags are missing here, or differ; the message has the command that fetches them. Or there
            are none here, and origin cannot be reached, so that it is not known whether there is a champion.
    """
    local_tags = _read_local_tags()
    remote_tags = _read_remote_tags(is_required=not local_tags)
    if missing := sorted(remote_tags.keys() - local_tags.keys()):
        is_shallow = require_git("rev-parse", "--is-shallow-repository").strip() == "true"
        clone, option = ("this shallow clone", " --unshallow") if is_shallow else ("this clone", "")
        raise UserError(
            f"{_join(missing)}: registered at {REMOTE}, missing in {clone}; "
            f"`git fetch{option} --tags {REMOTE}` fetches the tags"
        )
    if moved := sorted(name for name, value in remote_tags.items() if local_tags[name] != value):
        raise UserError(
            f"{_join(moved)}: not the same tag here and at {REMOTE}: moved, or created in two clones; "
            f"`git fetch --force {REMOTE} 'refs/tags/{ARTIFACT}*:refs/tags/{ARTIFACT}*'` takes the tags of "
            f"{REMOTE}"
        )


def has_origin() -> bool:
    """Return whether this repository has a remote `origin`."""
    return REMOTE in require_git("remote").split()


def _read_local_tags() -> dict[str, str]:
    output = require_git("for-each-ref", "--format=%(objectname) %(refname)", *TAG_PATTERNS)
    return _parse_references(output.splitlines())


def require_origin(local: str) -> None:
    """Raise UserError unless this repository has a remote `origin`, to which `--push` pushes.

    Args:
        local: what stays in this repository without `--push`.
    """
    if not has_origin():
        raise UserError(
            f"--push: this repository has no remote {REMOTE}; `git remote add {REMOTE} URL` adds it, and "
            f"without --push {local}"
        )


def _read_remote_tags(*, is_required: bool = False) -> dict[str, str]:
    if not has_origin():
        logger.warning("this repository has no remote %s: the registry is that of the local tags", REMOTE)
        return {}
    try:
        output = require_git("ls-remote", "--tags", "--refs", REMOTE, *TAG_PATTERNS, timeout_s=TIMEOUT_S)
    except UserError as error:
        if is_required:
            raise UserError(
                f"cannot read the tags of {REMOTE}: {error}; this clone has no tag of the registry, so it is "
                f"not known whether there is a {CHAMPION}"
            ) from None
        logger.warning("cannot read the tags of %s: %s; the local tags may be out of date", REMOTE, error)
        return {}
    return _parse_references(output.splitlines())


def _parse_references(lines: list[str]) -> dict[str, str]:
    """Return the hash of each tag by its name."""
    pairs = (line.split(maxsplit=1) for line in lines)
    tags = {reference.removeprefix("refs/tags/"): value for value, reference in pairs}
    return {name: value for name, value in tags.items() if TAG_NAME.fullmatch(name)}


def _join(names: list[str], limit: int = 5) -> str:
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])


def list_unpublished_tags() -> list[str]:
    """Return the registry's local tags that origin lacks, versions first; all tags if it cannot be read.

    A tag that has its name at origin but is not the same is among them, so that the push is refused: another
    clone has changed the champion meanwhile.
    """
    local_tags, remote_tags = _read_local_tags(), _read_remote_tags()
    names = (tag.name for tag in read_tags())
    unpublished = (name for name in names if remote_tags.get(name) != local_tags[name])
    return sorted(unpublished, key=lambda name: ("#" in name, name))


def build_push_command(names: list[str]) -> list[str]:
    """Return the command that pushes tags, all of them or none."""
    return ["git", "push", "--atomic", REMOTE, *(f"refs/tags/{name}" for name in names)]


def push_tags(names: list[str]) -> None:
    """Push tags to origin, all of them or none.

    Raises:
        UserError: the push failed. The tags stay in the local repository.
    """
    command = build_push_command(names)
    try:
        require_git(*command[1:])
    except UserError as error:
        raise UserError(
            f"the tags {', '.join(names)} exist here but are not at {REMOTE}: {error}\n"
            f"To publish them: {shlex.join(command)}\n"
            f"To withdraw them: {shlex.join(['git', 'tag', '--delete', *names])}"
        ) from None
