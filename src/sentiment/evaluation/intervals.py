"""Confidence intervals of the figures that evaluate reports."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


def delong_interval(
    labels: NDArray[np.integer], scores: NDArray[np.floating], level: float = 0.95
) -> Interval:
    """Confidence interval of the ROC AUC by DeLong's method, cut at 0 and 1.

    labels: shape (n,), 0 or 1. scores: shape (n,), higher means more positive; any monotone scale.
    Raises ValueError where a class has fewer than two members: its variance is then unknown.
    Source: DeLong et al. 1988, in the O(n log n) form of Sun and Xu 2014.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"DeLong's interval needs two of each class, found {m} positive and {n} negative")
    together = rankdata(np.concatenate([positive, negative]))
    # Placements: for each positive the share of negatives below it, for each negative of positives above it.
    above_negatives = (together[:m] - rankdata(positive)) / n
    below_positives = 1 - (together[m:] - rankdata(negative)) / m
    auc = above_negatives.mean()
    deviation = np.sqrt(above_negatives.var(ddof=1) / m + below_positives.var(ddof=1) / n)
    margin = norm.ppf((1 + level) / 2) * deviation
    return Interval(float(max(0.0, auc - margin)), float(min(1.0, auc + margin)))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Confidence interval of a share by Wilson's score method; from 0 to 1 where there were no trials."""
    if trials == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high))
