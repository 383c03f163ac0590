"""Result of the model gate, as the report and the ledger have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sentiment.evaluation.verdict import Comparison
from sentiment.intervals import DECIMALS
from sentiment.ledger import Outcome
from sentiment.retraining.slice_differences import SliceDifference

Role = Literal["champion", "anchor"]
"""Earlier model that a challenger is compared with."""


@dataclass(frozen=True)
class GateComparison:
    """The challenger compared with an earlier model at the level of the gate.

    Attributes:
        name: version of the earlier model, such as `sentiment@v3.0.0`.
        comparison: verdict on the challenger, with `rows_needed` for the margin of params.yaml.
        margin: AUC by which the challenger could be lower and still be `no worse`.
    """

    name: str
    comparison: Comparison
    margin: float

    def __str__(self) -> str:
        interval = self.comparison.interval
        return (
            f"compared with {self.name}: {self.comparison.verdict}, AUC {self.comparison.difference:+.4f} "
            f"({interval.low:+.4f} to {interval.high:+.4f}; margin {self.margin:.4f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded comparison as it is written to the report and the ledger."""
        return {"name": self.name, **self.comparison.to_dict(), "margin": round(self.margin, DECIMALS)}


@dataclass(frozen=True)
class GateResult:
    """The decision on a new model.

    Attributes:
        outcome: `promote`, `not_better` or `cannot_tell`.
        reason: why, in one sentence.
        verdict: weakest of the verdicts on champion and anchor, which the tag of a promotion records;
            `first champion` if there is no champion; None without a comparison.
        level: one-sided level of the comparisons.
        looks: number of models that this test split has decided on, with this one if `is_look`.
        is_look: whether the challenger was compared on the test split.
        comparisons: comparisons with champion and anchor; the anchor is left out if it is the champion.
        reference: comparison of the challenger with the linear reference on the holdout split, as in
            `metrics/evaluate.json`.
        slices: differences on the slices of the test split.
        behaviour: pass rates of the behavioural tests.
        violations: limits that the challenger violates, one sentence each.
        left_out: test reviews that one of the models has learned from.
        rows_missing: for `cannot_tell`, about how many more reviews of `undecided_split` would decide; None
            if it is not known, or if no number would.
        roc: true positive rates of champion and challenger on the reviews of the comparison, as
            `report_plots.compute_roc` returns them; empty without a comparison.
    """

    outcome: Outcome
    reason: str
    verdict: str | None
    level: float
    looks: int
    is_look: bool
    reference: Mapping[str, Any]
    behaviour: Mapping[str, float]
    comparisons: Mapping[Role, GateComparison]
    slices: Sequence[SliceDifference] = ()
    violations: Sequence[str] = ()
    left_out: int = 0
    rows_missing: int | None = None
    roc: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def undecided_split(self) -> Literal["test", "holdout"] | None:
        """Split that is too small for a decision: holdout, which has the linear reference, or test."""
        if self.rows_missing is None:
            return None
        return "test" if self.is_look else "holdout"

    @property
    def moved_slices(self) -> list[SliceDifference]:
        """Slices on which the challenger differs from the champion."""
        return [part for part in self.slices if part.has_moved]

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as it is written to `reports/retrain.json` and to the ledger's details."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "verdict": self.verdict,
            "level": round(self.level, 8),
            "looks": self.looks,
            "is_look": self.is_look,
            "comparisons": {role: comparison.to_dict() for role, comparison in self.comparisons.items()},
            "reference": dict(self.reference),
            "slices": [part.to_dict() for part in self.slices],
            "behaviour": dict(self.behaviour),
            "violations": list(self.violations),
            "left_out": self.left_out,
            "rows_missing": self.rows_missing,
            "undecided_split": self.undecided_split,
            "roc": {name: list(rates) for name, rates in self.roc.items()},
        }
