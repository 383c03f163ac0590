"""State of the registry: registered versions, the champion, and the champions before it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sentiment.errors import UserError
from sentiment.ledger import LedgerEntry
from sentiment.registry.git_tags import ARTIFACT, ARTIFACT_MD5, CHAMPION, LEDGER_ID, RegistryTag, read_tags
from sentiment.registry.origin import require_complete_tags

ROLLBACK = "rollback"
"""Value of the detail `Action` of an assignment that restores an earlier champion."""

FIRST_CHAMPION = "first champion"
"""Verdict on a model that was promoted when there was no champion."""


@dataclass(frozen=True)
class Assignment:
    """The stage `champion`, assigned to a version.

    Attributes:
        tag: tag that assigns the stage.
        registration: tag that registers the version at the same commit.
    """

    tag: RegistryTag
    registration: RegistryTag

    def describe(self) -> str:
        """Return what is in use, since when, by whom and why."""
        details = self.tag.details
        lines = [
            f"{self.registration.name} has been the champion since {self.tag.created:%Y-%m-%d %H:%M} UTC",
            f"  by:      {self.tag.author}",
            f"  why:     {self.tag.reason}",
        ]
        if verdict := details.get("Verdict"):
            lines.append(f"  verdict: {verdict}{', forced' if 'Forced' in details else ''}")
        if md5 := details.get("Model-MD5"):
            lines.append(f"  model:   {md5}")
        return "\n".join([*lines, f"  commit:  {self.tag.commit}", f"  tag:     {self.tag.name}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the same as it is printed in JSON."""
        details = self.tag.details
        return {
            "version": self.registration.name,
            "commit": self.tag.commit,
            "model_md5": details.get("Model-MD5"),
            "artifact_md5": details.get(ARTIFACT_MD5),
            "since": self.tag.created.isoformat(),
            "by": self.tag.author,
            "reason": self.tag.reason,
            "verdict": details.get("Verdict"),
            "forced": details.get("Forced"),
            "action": details.get("Action"),
            "tag": self.tag.name,
        }


@dataclass(frozen=True)
class Registry:
    """All tags of the registry, oldest first."""

    tags: Sequence[RegistryTag]

    @cached_property
    def versions(self) -> dict[str, RegistryTag]:
        """Tags of the registered versions by commit, in the order of registration."""
        versions: dict[str, RegistryTag] = {}
        for tag in self.tags:
            if tag.version is not None and tag.is_cancellation:
                versions = {
                    commit: other for commit, other in versions.items() if other.version != tag.version
                }
            elif tag.version is not None:
                versions[tag.commit] = tag
        return versions

    @cached_property
    def champions(self) -> list[Assignment]:
        """The champion, last, and the earlier champions that a rollback restores, one after the other.

        A promotion adds a champion. A rollback removes the last one, so that two rollbacks in a row go back
        by two versions, and the next promotion starts from there. If the champion is unassigned with GTO,
        there is none until the next promotion.

        Raises:
            UserError: the newest assignment is to a commit without a registered version.
        """
        champions: list[Assignment] = []
        assignments = [tag for tag in self.tags if tag.stage == CHAMPION]
        for tag in assignments:
            registration = self.versions.get(tag.commit)
            if tag.is_cancellation:
                if "Action" not in tag.details:  # otherwise an assignment follows
                    is_champion = champions and champions[-1].tag.commit == tag.commit
                    others = [other for other in champions if other.tag.commit != tag.commit]
                    champions = [] if is_champion else others
                continue
            if tag.details.get("Action") == ROLLBACK:
                champions = _roll_back(champions, tag)
            if registration is not None:
                champions.append(Assignment(tag, registration))
            elif tag is assignments[-1]:
                raise UserError(
                    f"{tag.name}: assigns the stage {CHAMPION} to commit {tag.commit}, which has no "
                    f"registered version; `gto register {ARTIFACT} {tag.commit}` registers one"
                )
        return champions

    def find_higher_versions(self, commit: str) -> list[RegistryTag]:
        """Return the versions above that of a commit to which the stage is assigned.

        GTO shows the highest version to which a stage is assigned, so these must be unassigned before a lower
        version becomes the champion.
        """
        last_tags = {tag.commit: tag for tag in self.tags if tag.stage == CHAMPION}
        assigned = [
            version
            for other, version in self.versions.items()
            if other in last_tags and not last_tags[other].is_cancellation
        ]
        own = self.versions[commit].version if commit in self.versions else None
        return [] if own is None else [tag for tag in assigned if tag.version and tag.version > own]

    @property
    def champion(self) -> Assignment | None:
        """The version in use; None if the stage has not been assigned."""
        return self.champions[-1] if self.champions else None

    @property
    def challenger(self) -> RegistryTag | None:
        """Tag of the newest registered version that is not the champion; None if there is none."""
        champion = self.champion
        others = [
            tag for commit, tag in self.versions.items() if champion is None or commit != champion.tag.commit
        ]
        return others[-1] if others else None

    @property
    def newest_time(self) -> int:
        """Unix time of the newest tag, 0 if there is none."""
        return max((int(tag.created.timestamp()) for tag in self.tags), default=0)

    def name_next_version(self) -> str:
        """Return the name of the tag of the next version: each new model is a new major version."""
        newest = max((tag.version[0] for tag in self.tags if tag.version), default=0)
        return f"{ARTIFACT}@v{newest + 1}.0.0"

    @property
    def next_counter(self) -> int:
        """Number of the next assignment or unassignment, counted as GTO counts."""
        return max((tag.counter for tag in self.tags), default=0) + 1


def _roll_back(champions: list[Assignment], tag: RegistryTag) -> list[Assignment]:
    """Return the champions below the one that a rollback restores, without the one that it replaces.

    Either of the two may be missing in the list: its version may have been deregistered later.
    """
    if champions and champions[-1].registration.name == tag.details.get("Previous"):
        champions = champions[:-1]
    restored = [index for index, other in enumerate(champions) if other.tag.commit == tag.commit]
    return champions[: restored[-1]] if restored else champions


def open_registry() -> Registry:
    """Read the registry, after a comparison of its tags with origin.

    Raises:
        UserError: as `require_complete_tags` and `read_tags`.
    """
    require_complete_tags()
    return Registry(read_tags())


def require_complete(entries: Iterable[LedgerEntry], champion: Assignment | None) -> None:
    """Raise UserError if the ledger lacks the decision that promoted the champion: lines were lost.

    A retraining would then not know which models were compared on the test split before.

    Args:
        entries: the ledger.
        champion: the champion; None if there is none.

    Raises:
        UserError: the decision that the champion's tag names is missing.
    """
    decision = champion.tag.details.get(LEDGER_ID) if champion else None
    if champion and decision and all(entry.id != decision for entry in entries):
        raise UserError(
            f"the ledger lacks the decision {decision} by which {champion.registration.name} was promoted; "
            "fetch or restore the branch ledger (`git fetch origin ledger`), or push it from the clone that "
            "has it (`git push origin ledger`)"
        )


def require_champion(registry: Registry) -> Assignment:
    """Return the champion.

    Raises:
        UserError: there is none.
    """
    if registry.champion is None:
        raise UserError(
            f"{ARTIFACT} has no {CHAMPION}; `sentiment promote --first` makes the model of HEAD the first one"
        )
    return registry.champion
