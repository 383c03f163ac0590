"""Confidence intervals of the figures that tune and evaluate report."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

DECIMALS = 6
"""Of a figure in a metrics file."""


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """By how much one model's AUC exceeds another's on the same reviews."""

    auc: float
    interval: Interval | None
    """By DeLong's paired method; None where the scores of one of the two are gone."""

    def __str__(self) -> str:
        ends = f" ({self.interval.low:+.4f} to {self.interval.high:+.4f})" if self.interval else ""
        return f"{self.auc:+.4f}{ends}"

    def figures(self) -> dict[str, Any]:
        """Return both as metrics files have them."""
        ends = asdict(self.interval) if self.interval else None
        return {
            "auc": round(self.auc, DECIMALS),
            "interval": ends and {end: round(value, DECIMALS) for end, value in ends.items()},
        }


def delong_interval(
    labels: NDArray[np.integer], scores: NDArray[np.floating], confidence_level: float = 0.95
) -> Interval:
    """Confidence interval of the ROC AUC by DeLong's method, cut at 0 and 1.

    labels: shape (n,), 0 or 1. scores: shape (n,), higher means more positive; any monotone scale.
    Raises ValueError where a class has fewer than two members: its variance is then unknown.
    Source: DeLong et al. 1988, in the O(n log n) form of Sun and Xu 2014.
    """
    above_negatives, below_positives = _placements(labels, scores)
    return _interval(above_negatives, below_positives, confidence_level, lowest=0.0)


def delong_gain(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    confidence_level: float = 0.95,
) -> tuple[float, Interval]:
    """Return by how much the ROC AUC of `scores` exceeds that of `reference`, with DeLong's paired interval.

    Both score the same reviews, so the interval is narrower than two separate ones would make believe.
    labels: shape (n,), 0 or 1. scores, reference: shape (n,), higher means more positive; any monotone scale.
    Raises ValueError where a class has fewer than two members: the variance is then unknown.
    Source: DeLong et al. 1988, section on comparing areas; the interval is cut at -1 and 1.
    """
    ours, theirs = _placements(labels, scores), _placements(labels, reference)
    of_positives, of_negatives = ours[0] - theirs[0], ours[1] - theirs[1]
    return float(of_positives.mean()), _interval(of_positives, of_negatives, confidence_level, lowest=-1.0)


def _placements(
    labels: NDArray[np.integer], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each positive the share of negatives below it, for each negative of positives above it."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"DeLong's interval needs two of each class, found {m} positive and {n} negative")
    together = rankdata(np.concatenate([positive, negative]))
    return (together[:m] - rankdata(positive)) / n, 1 - (together[m:] - rankdata(negative)) / m


def _interval(
    of_positives: NDArray[np.float64],
    of_negatives: NDArray[np.float64],
    confidence_level: float,
    lowest: float,
) -> Interval:
    """The normal interval around a mean of placements, or of their differences, cut at `lowest` and 1."""
    variance = of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    mean, margin = of_positives.mean(), norm.ppf((1 + confidence_level) / 2) * np.sqrt(variance)
    return Interval(float(max(lowest, mean - margin)), float(min(1.0, mean + margin)))


def wilson_interval(successes: int, trials: int, confidence_level: float = 0.95) -> Interval:
    """Confidence interval of a share by Wilson's score method; from 0 to 1 where there were no trials."""
    if trials == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, trials).proportion_ci(confidence_level, method="wilson")
    return Interval(float(interval.low), float(interval.high))
