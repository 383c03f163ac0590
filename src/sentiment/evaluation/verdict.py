"""The verdict on two models: a paired comparison of their AUCs on the same reviews.

It is about these two models, not about their configurations: another seed alone changes an AUC by 0.0005.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.intervals import DECIMALS, Interval, estimate_auc_difference

Verdict = Literal["better", "no worse", "worse", "cannot tell"]
"""Result of a comparison; `decide` defines the four words."""

MIN_CLASS_SIZE = 25
"""Fewest reviews of each class, or groups with such reviews, that decide.

Often, two accurate models both separate the classes of a smaller sample, so that their difference has no
variance. A model whose AUC is lower by 0.01 was `no worse` in 35% of simulated samples of 20 reviews, and in
1% of samples of 50.
"""


@dataclass(frozen=True)
class Comparison:
    """A model compared with a reference model on the same reviews.

    Attributes:
        verdict: the verdict on the model.
        difference: AUC of the model minus AUC of the reference model.
        interval: paired confidence interval of the difference.
        rows: number of reviews.
        rows_needed: for `cannot tell`, how many more reviews would decide if the difference and the variance
            per review stayed as they are; None for the other verdicts.
    """

    verdict: Verdict
    difference: float
    interval: Interval
    rows: int
    rows_needed: int | None

    @property
    def is_better(self) -> bool:
        """True if the model should replace the reference model."""
        return self.verdict == "better"

    @property
    def is_no_worse(self) -> bool:
        """True if the model may be used in place of the reference model, for a reason other than its AUC."""
        return self.verdict in ("better", "no worse")

    def __str__(self) -> str:
        if self.difference == self.interval.low == self.interval.high == 0:
            return f"{self.verdict}: equal scores on all {self.rows:,} reviews"
        bounds = f"{self.interval.low:+.4f} to {self.interval.high:+.4f}"
        line = f"{self.verdict}: AUC {self.difference:+.4f} ({bounds}) on {self.rows:,} reviews"
        return line if self.rows_needed is None else f"{line}; about {self.rows_needed:,} more would decide"

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded comparison as it is written to a metrics file."""
        return {
            "verdict": self.verdict,
            "difference": round(self.difference, DECIMALS),
            "interval": self.interval.to_dict(),
            "rows": self.rows,
            "rows_needed": self.rows_needed,
        }


def decide(interval: Interval, margin: float) -> Verdict:
    """Return the verdict for an interval of the difference; the first of these that holds.

    `better`: the interval is above 0. `no worse`: it is above -margin, even if it is also below 0. `worse`:
    it is below 0. `cannot tell`: none of these.
    """
    if interval.low > 0:
        return "better"
    if interval.low > -margin:
        return "no worse"
    return "worse" if interval.high < 0 else "cannot tell"


def compare_scores(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    groups: NDArray[np.integer] | None = None,
    confidence_level: float,
    margin: float,
) -> Comparison:
    """Compare the AUCs of two models on the same reviews, which neither model may have learned from.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits of the model, higher for a more positive review, shape (n_reviews,).
        reference: scores or logits of the reference model for the same reviews, shape (n_reviews,).
        groups: group of each review, within which reviews are correlated, shape (n_reviews,); None if all are
            independent.
        confidence_level: confidence level of the two-sided interval. At 0.95, an equal model is `better` in
            2.5% of comparisons.
        margin: AUC by which a model may be lower and still be `no worse`.

    Returns:
        The comparison. It is `cannot tell` with fewer than `MIN_CLASS_SIZE` reviews or groups of a class,
        unless all scores are equal, as those of a search that chose the configuration it started from.

    Raises:
        UserError: scores are not finite, shapes differ, a class has fewer than two reviews or groups, or the
            confidence level or the margin is out of range.
    """
    if not 0 < confidence_level < 1:
        raise UserError(f"the confidence level must be between 0 and 1, not {confidence_level}")
    if not 0 < margin < 1:
        raise UserError(f"the margin must be between 0 and 1, not {margin}")
    estimate = estimate_auc_difference(labels, scores, reference, groups)
    interval = estimate.compute_interval(confidence_level)
    class_size = _count_smaller_class(labels, groups)
    is_decidable = class_size >= MIN_CLASS_SIZE or np.array_equal(scores, reference)
    verdict = decide(interval, margin) if is_decidable else "cannot tell"
    rows_needed = None
    if verdict == "cannot tell":
        half_width = estimate.compute_half_width(confidence_level)
        rows_needed = max(
            count_rows_needed(estimate.value, half_width, margin, len(labels)),
            math.ceil(len(labels) * (MIN_CLASS_SIZE / class_size - 1)),
        )
    return Comparison(verdict, estimate.value, interval, len(labels), rows_needed)


def _count_smaller_class(labels: NDArray[np.integer], groups: NDArray[np.integer] | None) -> int:
    """Return the number of reviews, or of groups with reviews, of the class that has fewer."""
    units = np.arange(len(labels)) if groups is None else groups
    return min(len(np.unique(units[labels == label])) for label in (0, 1))


def count_rows_needed(difference: float, half_width: float, margin: float, rows: int) -> int:
    """Return how many more rows shrink the half-width, as 1 / sqrt(rows), until another verdict is reached.

    `no worse` needs a half-width below difference + margin, `worse` one below -difference. `better` needs
    more rows than `no worse`.
    """
    deciding_width = max(difference + margin, -difference)
    return math.floor(rows * (half_width / deciding_width) ** 2) + 1 - rows
