"""`sentiment promote` and `sentiment rollback`: the choice of the model in use, by verdict or by a person."""

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from sentiment import paths
from sentiment.errors import UserError, translated_errors
from sentiment.registry.decision import decide, find_entry
from sentiment.registry.git_tags import (
    ARTIFACT,
    ARTIFACT_MD5,
    CHAMPION,
    create_tag,
    read_tags,
    require_free_names,
    resolve_commit,
)
from sentiment.registry.mirror import synchronize
from sentiment.registry.origin import (
    build_push_command,
    has_origin,
    list_unpublished_tags,
    push_tags,
    require_origin,
)
from sentiment.registry.revision import (
    CommittedModel,
    is_uncommitted,
    read_committed_model,
    read_registered_model,
)
from sentiment.registry.state import (
    ROLLBACK,
    Assignment,
    Registry,
    open_registry,
    require_champion,
)
from sentiment.repository import require_git

logger = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 1000
"""Maximum length of a reason, which MLflow stores in a description of limited length."""


@dataclass(frozen=True)
class Change:
    """A change of the champion.

    Attributes:
        champion: the new champion.
        tags: names of the tags that were created; empty if it was the champion before.
        unpublished: names of the registry's tags that origin lacks; empty without an origin.
    """

    champion: Assignment
    tags: tuple[str, ...]
    unpublished: tuple[str, ...]

    def describe(self) -> str:
        """Return the champion, and the command that publishes the tags if they were not pushed."""
        lines = [self.champion.describe()]
        if self.unpublished:
            lines.append(f"publish the tags: {shlex.join(build_push_command([*self.unpublished]))}")
        return "\n".join(lines)


def promote(
    revision: str = "HEAD",
    *,
    reason: str | None = None,
    first: bool = False,
    force: bool = False,
    push: bool = False,
) -> Change:
    """Make the selected model of a commit the champion: register a version, and assign the stage to it.

    If the ledger has the decision of a retraining to promote this model in place of the champion, it takes
    the place of a comparison, once; it also promotes a first champion.

    A commit that is registered keeps its version, and the champion stays as it is, so that a promotion that
    was interrupted can be run again.

    Args:
        revision: git revision.
        reason: reason for the promotion; by default the verdict.
        first: promote without a comparison, if there is no champion.
        force: promote whatever the verdict; requires a reason.
        push: push the tags to origin.

    Raises:
        UserError: neither the verdict nor a decision of the ledger permits the promotion, the model cannot be
            read, tags are missing in this clone, or the push failed.
    """
    reason = _validate_reason(reason)
    if push:
        require_origin("the tags are local")
    if force and reason is None:
        raise UserError("--force needs --reason: why is the model promoted without a verdict for it?")
    commit = resolve_commit(revision)
    registry = open_registry()
    champion = registry.champion
    if champion is not None and champion.tag.commit == commit:
        logger.info("%s is the champion already", champion.registration.name)
        return _publish(registry, (), push=push)
    if first and champion is not None:
        raise UserError(f"--first: {champion.registration.name} is the {CHAMPION}; promote without --first")
    model = read_committed_model(commit)
    entry = find_entry(registry, model)
    if not first and entry is None:
        champion = require_champion(registry)
    if is_uncommitted(paths.PARAMS):
        raise UserError(
            f"{paths.PARAMS} has changes that are not committed, and the verdict depends on its section "
            "evaluate: commit or undo them"
        )
    if resolve_commit("HEAD") == commit and is_uncommitted(paths.LOCK):
        logger.warning("dvc.lock has changes that are not committed: the committed model is promoted")
    decision = decide(model, champion, entry, force=force)
    if decision.objections and not force:
        raise UserError(
            f"{revision} is not promoted: {'; '.join(decision.objections)}. "
            "`--force --reason TEXT` promotes it all the same, with the reason in the tag's message"
        )
    details = {
        "Reason": reason or decision.explanation,
        "Verdict": decision.verdict,
        "Comparison": decision.explanation,
        **decision.describe_source(),
        **({"Forced": "; ".join(decision.objections) or "no objection"} if force else {}),
        **({"Previous": champion.registration.name} if champion else {}),
        "Action": "promote",
    }
    return _assign(registry, model, details, push=push)


def rollback(reason: str, *, push: bool = False) -> Change:
    """Make the previous champion the champion again; see `Registry.champions` for several rollbacks.

    Args:
        reason: reason for the rollback.
        push: push the tag to origin.

    Raises:
        UserError: there is no earlier champion, tags are missing in this clone, or the push failed.
    """
    reason = _validate_reason(reason) or ""
    if push:
        require_origin("the tags are local")
    registry = open_registry()
    champion = require_champion(registry)
    if len(registry.champions) < 2:
        raise UserError(f"{champion.registration.name} is the first {CHAMPION}: there is none to go back to")
    if push and champion.tag.details.get("Action") == ROLLBACK:
        unpublished = list_unpublished_tags()
        if champion.tag.name in unpublished:  # a push that failed: a second rollback would go back further
            raise UserError(
                f"the last rollback, to {champion.registration.name}, is not published; publish it with "
                f"{shlex.join(build_push_command(unpublished))}, or roll back once more without --push"
            )
    previous = registry.champions[-2]
    details = {"Reason": reason, "Previous": champion.registration.name, "Action": ROLLBACK}
    return _assign(registry, read_registered_model(previous.tag), details, push=push)


def _validate_reason(reason: str | None) -> str | None:
    if reason is None:
        return None
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= MAX_REASON_CHARACTERS:
        raise UserError(f"--reason: must have 1 to {MAX_REASON_CHARACTERS:,} characters, not {len(reason):,}")
    return reason


def _assign(registry: Registry, model: CommittedModel, details: Mapping[str, str], *, push: bool) -> Change:
    """Create the missing tags, push them if wanted, and mirror them."""
    details = {**details, "Model-MD5": model.model_md5, ARTIFACT_MD5: model.artifact_md5}
    registration = registry.versions.get(model.commit)
    version = registration.name if registration else registry.name_next_version()
    label = version.removeprefix(f"{ARTIFACT}@")
    tags = [] if registration else [(version, model.commit, f"Register {ARTIFACT} {label}")]
    higher_versions = registry.find_higher_versions(model.commit)
    for counter, other in enumerate(higher_versions, start=registry.next_counter):
        tags.append(
            (f"{ARTIFACT}#{CHAMPION}!#{counter}", other.commit, f"Unassign {CHAMPION} from {other.name}")
        )
    counter = registry.next_counter + len(higher_versions)
    tags.append(
        (f"{ARTIFACT}#{CHAMPION}#{counter}", model.commit, f"Assign {CHAMPION} to {ARTIFACT} {label}")
    )
    require_free_names(name for name, _, _ in tags)
    require_git("var", "GIT_COMMITTER_IDENT")  # fails before the first tag if git does not know the author
    newest_time = registry.newest_time
    for name, commit, subject in tags:
        newest_time = create_tag(name, commit, subject, details, after=newest_time)
    return _publish(Registry(read_tags()), tuple(name for name, _, _ in tags), push=push)


def _publish(registry: Registry, tags: tuple[str, ...], *, push: bool) -> Change:
    champion = require_champion(registry)
    # Also the tags of earlier changes that were not pushed, without which other clones have another history.
    unpublished = list_unpublished_tags()
    if push and unpublished:
        push_tags(unpublished)
    try:
        with translated_errors():
            for line in synchronize(registry):
                logger.info(line)
    except UserError as error:
        logger.warning(
            "MLflow does not mirror the tags: %s\n`sentiment registry sync` mirrors them later",
            error,
        )
    return Change(champion, tags, () if push or not has_origin() else tuple(unpublished))
