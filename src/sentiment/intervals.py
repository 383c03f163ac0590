"""Confidence intervals of the metrics that tune and evaluate report."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

DECIMALS = 6
"""Decimals of a value in a metrics file."""


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """By how much one model's AUC exceeds another's on the same reviews.

    Attributes:
        auc: difference of the two AUCs.
        interval: DeLong's paired confidence interval; None if the scores of one of the models are missing.
    """

    auc: float
    interval: Interval | None

    def __str__(self) -> str:
        ends = f" ({self.interval.low:+.4f} to {self.interval.high:+.4f})" if self.interval else ""
        return f"{self.auc:+.4f}{ends}"

    def to_dict(self) -> dict[str, Any]:
        """Return the gain in the form of a metrics file, rounded."""
        ends = asdict(self.interval) if self.interval else None
        return {
            "auc": round(self.auc, DECIMALS),
            "interval": ends and {end: round(value, DECIMALS) for end, value in ends.items()},
        }


def compute_delong_interval(
    labels: NDArray[np.integer], scores: NDArray[np.floating], confidence_level: float = 0.95
) -> Interval:
    """Compute the confidence interval of the ROC AUC by DeLong's method, clipped to 0 and 1.

    Source: DeLong et al. 1988, in the O(n log n) form of Sun and Xu 2014.

    Args:
        labels: 0 or 1, shape (n,).
        scores: higher means more positive; any monotone scale, shape (n,).
        confidence_level: of the interval.

    Raises:
        ValueError: a class has fewer than two members, so its variance is unknown.
    """
    positive_placements, negative_placements = _compute_placements(labels, scores)
    return _compute_normal_interval(positive_placements, negative_placements, confidence_level, lowest=0.0)


def compute_delong_gain(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    confidence_level: float = 0.95,
) -> tuple[float, Interval]:
    """Compute by how much the ROC AUC of `scores` exceeds that of `reference`, with DeLong's paired interval.

    Both score the same reviews, so the interval is narrower than two separate intervals suggest.
    Source: DeLong et al. 1988, section on comparing areas.

    Args:
        labels: 0 or 1, shape (n,).
        scores: higher means more positive; any monotone scale, shape (n,).
        reference: likewise, shape (n,).
        confidence_level: of the interval.

    Returns:
        The difference of the AUCs, and its interval clipped to -1 and 1.

    Raises:
        ValueError: a class has fewer than two members, so the variance is unknown.
    """
    ours, theirs = _compute_placements(labels, scores), _compute_placements(labels, reference)
    of_positives, of_negatives = ours[0] - theirs[0], ours[1] - theirs[1]
    interval = _compute_normal_interval(of_positives, of_negatives, confidence_level, lowest=-1.0)
    return float(of_positives.mean()), interval


def _compute_placements(
    labels: NDArray[np.integer], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute, by positive, the share of negatives below it and, by negative, of positives above it."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"DeLong's interval needs two of each class, found {m} positive and {n} negative")
    together = rankdata(np.concatenate([positive, negative]))
    return (together[:m] - rankdata(positive)) / n, 1 - (together[m:] - rankdata(negative)) / m


def _compute_normal_interval(
    of_positives: NDArray[np.float64],
    of_negatives: NDArray[np.float64],
    confidence_level: float,
    lowest: float,
) -> Interval:
    """Compute the normal interval around a mean of placements or of differences, cut at `lowest` and 1."""
    variance = of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    mean, margin = of_positives.mean(), norm.ppf((1 + confidence_level) / 2) * np.sqrt(variance)
    return Interval(float(max(lowest, mean - margin)), float(min(1.0, mean + margin)))


def compute_wilson_interval(successes: int, trials: int, confidence_level: float = 0.95) -> Interval:
    """Compute the confidence interval of a proportion by Wilson's score method; 0 to 1 without trials."""
    if trials == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, trials).proportion_ci(confidence_level, method="wilson")
    return Interval(float(interval.low), float(interval.high))
