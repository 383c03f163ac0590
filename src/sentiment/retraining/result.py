"""Result of a retraining, as `reports/retrain.json` has it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentiment.ledger import LedgerEntry, Outcome
from sentiment.registry.state import Assignment
from sentiment.retraining.changes import Changes
from sentiment.retraining.pipeline import PipelineRun

if TYPE_CHECKING:
    from sentiment.retraining.data_gate import DataGateResult  # imports torch, which takes seconds


@dataclass(frozen=True)
class RetrainingResult:
    """Result of a retraining.

    Attributes:
        outcome: the outcome.
        reason: why, in one sentence.
        commit: commit on which it started.
        champions: the champion at that time, last, and the ones before it; empty if there was none.
        entry: line of the ledger, whose details have the measurements; None for `nothing_new`.
        is_repeated: whether the decision is that of an earlier retraining.
        changes: what changed since the champion; None without one.
        pipeline: stages that ran.
        data_gate: check of the new rows; None if the reviews are the champion's, or without a champion.
        last_decision: time of the newest line of the ledger before this retraining, in ISO format; None if
            it was empty.
    """

    outcome: Outcome
    reason: str
    commit: str
    champions: Sequence[Assignment]
    entry: LedgerEntry | None
    is_repeated: bool
    changes: Changes | None
    pipeline: PipelineRun
    data_gate: "DataGateResult | None"
    last_decision: str | None

    @property
    def champion(self) -> Assignment | None:
        """The champion at the start; None if there was none."""
        return self.champions[-1] if self.champions else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is written to `reports/retrain.json`."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "commit": self.commit,
            "champion": self.champion.to_dict() if self.champion else None,
            "entry": json.loads(self.entry.to_json()) if self.entry else None,
            "is_repeated": self.is_repeated,
            "changes": self.changes.to_dict() if self.changes else None,
            "seconds": {stage: round(seconds, 1) for stage, seconds in self.pipeline.seconds.items()},
            "restored": list(self.pipeline.restored),
            "data_gate": self.data_gate.to_dict() if self.data_gate else None,
            "last_decision": self.last_decision,
        }
