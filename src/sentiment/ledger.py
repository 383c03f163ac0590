"""The ledger: one line per decision on a model or a batch of rows, in a git branch of its own."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

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


@dataclass(frozen=True)
class LedgerEntry:
    """A decision on a model or a batch of rows: one line of the ledger.

    The fields of `key` identify it: the same models on the same test split are decided on once.

    Attributes:
        outcome: outcome of the retraining; never `nothing_new`, which decides nothing.
        reason: why, in one sentence.
        test: MD5 of the Parquet file of the test split.
        champion: MD5 of the champion's folder `models/selected`, as in dvc.lock; None for the first champion.
        challenger: the same of the new model; None where the data gate stopped.
        batch: digest of the batch of new rows; None where there is none.
        commit: commit on which the retraining started.
        created: UTC time of the decision, in ISO format.
        is_look: whether the challenger was compared with the champion on the test split.
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
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"{self.outcome}: not an outcome of a retraining")

    @property
    def key(self) -> tuple[str | None, ...]:
        """Test split, champion, and challenger or, where nothing was trained, batch."""
        return self.test, self.champion, self.challenger or self.batch

    def to_json(self) -> str:
        """Return the entry as one line of JSON, without the line break."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "LedgerEntry":
        """Parse a line of the ledger.

        Raises:
            ValueError: it is not JSON, or is not a decision.
        """
        content = json.loads(line)
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"not a decision: {error}") from None
