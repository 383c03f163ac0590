"""Two models compared on the slices of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sentiment import paths
from sentiment.comparison import ScoredReviews
from sentiment.evaluation.slices import MIN_REVIEWS, SliceDefinition, define_slices
from sentiment.intervals import DECIMALS, Interval, estimate_auc_difference
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import load_tokenizer

CONFIDENCE_LEVEL = 0.95
"""Confidence level of the intervals of all slices together; that of one is higher (Bonferroni)."""


@dataclass(frozen=True)
class SliceDifference:
    """AUC of the challenger minus AUC of the champion on a slice of the test split.

    Attributes:
        name: name of the slice.
        reviews: number of reviews.
        difference: the difference.
        interval: its confidence interval at 95% for all slices together.
    """

    name: str
    reviews: int
    difference: float
    interval: Interval

    @property
    def has_moved(self) -> bool:
        """True if the interval excludes 0."""
        return self.interval.low > 0 or self.interval.high < 0

    def __str__(self) -> str:
        bounds = f"{self.interval.low:+.4f} to {self.interval.high:+.4f}"
        return f"{self.name}: AUC {self.difference:+.4f} ({bounds}) on {self.reviews:,} reviews"

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded difference as it is written to the report and the ledger."""
        return {
            "name": self.name,
            "reviews": self.reviews,
            "difference": round(self.difference, DECIMALS),
            "interval": self.interval.to_dict(),
            "has_moved": self.has_moved,
        }


def compare_slices(scored: ScoredReviews, challenger: str, champion: str) -> list[SliceDifference]:
    """Compare two models on the slices of the test split that have enough reviews.

    Args:
        scored: reviews and logits.
        challenger: name of the challenger in `scored`.
        champion: name of the champion in `scored`.
    """
    tokens = encode(load_tokenizer(paths.TOKENIZER), scored.reviews)
    training_groups = pq.read_table(paths.reviews("train"), columns=["group"])["group"].to_pylist()
    parts = [
        part
        for part in define_slices(scored.reviews, tokens, set(training_groups))
        if _is_large(part, scored)
    ]
    confidence_level = 1 - (1 - CONFIDENCE_LEVEL) / max(len(parts), 1)
    differences = []
    for part in parts:
        labels, groups = scored.labels[part.members], scored.groups
        estimate = estimate_auc_difference(
            labels,
            scored.logits[challenger][part.members],
            scored.logits[champion][part.members],
            None if groups is None else groups[part.members],
        )
        interval = estimate.compute_interval(confidence_level)
        differences.append(SliceDifference(part.name, len(labels), estimate.value, interval))
    return differences


def _is_large(part: SliceDefinition, scored: ScoredReviews) -> bool:
    """Return whether a slice has enough reviews, and groups, of each class for a comparison."""
    for label in (0, 1):
        members = part.members & (scored.labels == label)
        units = members.sum() if scored.groups is None else len(np.unique(scored.groups[members]))
        if units < MIN_REVIEWS:
            return False
    return True


def find_worse_slices(slices: Sequence[SliceDifference], margin: float) -> list[str]:
    """Return the slices on which the challenger is lower than the champion by more than a margin."""
    return [str(part) for part in slices if part.interval.high < -margin]
