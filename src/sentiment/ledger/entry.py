"""A line of the ledger: a decision on a model or a batch of rows."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from types import UnionType
from typing import Any, Literal, get_args

from sentiment.files import compute_md5

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


@dataclass(frozen=True)
class LedgerEntry:
    """A decision on a model or a batch of rows: one line of the ledger.

    The fields of `key` identify it: the same models on the same test split are compared once.

    Attributes:
        outcome: outcome of the retraining; never `nothing_new`, which decides nothing.
        reason: why, in one sentence.
        test: digest of the texts and labels of the test split; empty if download stopped, and so wrote none.
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
