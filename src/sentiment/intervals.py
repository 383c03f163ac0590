"""Confidence intervals of the metrics that tune and evaluate report."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

DECIMALS = 6
"""Number of decimal places of values in metrics files."""


@dataclass(frozen=True)
class Interval:
    """Lower and upper bound of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """Difference in AUC between a model and a reference model on the same reviews.

    Attributes:
        auc: AUC of the model minus AUC of the reference model.
        interval: DeLong's paired confidence interval.
    """

    auc: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.auc:+.4f} ({self.interval.low:+.4f} to {self.interval.high:+.4f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded gain as it is written to a metrics file."""
        bounds = {name: round(value, DECIMALS) for name, value in asdict(self.interval).items()}
        return {"auc": round(self.auc, DECIMALS), "interval": bounds}


def compute_delong_interval(
    labels: NDArray[np.integer], scores: NDArray[np.floating], confidence_level: float = 0.95
) -> Interval:
    """Compute the confidence interval of the ROC AUC by DeLong's method, clipped to [0, 1].

    Source: DeLong et al. 1988, in the O(n log n) form of Sun and Xu 2014.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits, higher for a more positive review, shape (n_reviews,).
        confidence_level: confidence level of the interval, between 0 and 1.

    Raises:
        ValueError: a class has fewer than two reviews, so its variance is not defined.
    """
    positive_placements, negative_placements = _compute_placements(labels, scores)
    return _compute_normal_interval(positive_placements, negative_placements, confidence_level, lowest=0.0)


def compute_delong_gain(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    confidence_level: float = 0.95,
) -> tuple[float, Interval]:
    """Compute the gain in ROC AUC of `scores` over `reference`, with DeLong's paired confidence interval.

    The two AUCs are correlated, since both models score the same reviews. The paired interval takes this into
    account and is usually narrower than two separate intervals suggest.
    Source: DeLong et al. 1988, section on comparing areas.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits of the model, higher for a more positive review, shape (n_reviews,).
        reference: scores or logits of the reference model for the same reviews, shape (n_reviews,).
        confidence_level: confidence level of the interval, between 0 and 1.

    Returns:
        The AUC of `scores` minus the AUC of `reference`, and its interval clipped to [-1, 1].

    Raises:
        ValueError: a class has fewer than two reviews, so its variance is not defined.
    """
    positive, negative = _compute_placements(labels, scores)
    reference_positive, reference_negative = _compute_placements(labels, reference)
    positive_differences, negative_differences = positive - reference_positive, negative - reference_negative
    interval = _compute_normal_interval(
        positive_differences, negative_differences, confidence_level, lowest=-1.0
    )
    return float(positive_differences.mean()), interval


def _compute_placements(
    labels: NDArray[np.integer], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the placement values of DeLong's method; reviews with equal scores count half.

    Returns:
        For each positive review the share of negative reviews with a lower score, shape (n_positive,), and
        for each negative review the share of positive reviews with a higher score, shape (n_negative,).
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"DeLong's interval needs two of each class, found {m} positive and {n} negative")
    pooled_ranks = rankdata(np.concatenate([positive, negative]))
    return (pooled_ranks[:m] - rankdata(positive)) / n, 1 - (pooled_ranks[m:] - rankdata(negative)) / m


def _compute_normal_interval(
    positive_values: NDArray[np.float64],
    negative_values: NDArray[np.float64],
    confidence_level: float,
    lowest: float,
) -> Interval:
    """Compute the normal confidence interval of an AUC or of a difference of AUCs, clipped to [lowest, 1].

    Args:
        positive_values: placement values of the positive reviews, or their differences, shape (n_positive,).
        negative_values: placement values of the negative reviews, or their differences, shape (n_negative,).
        confidence_level: confidence level of the interval, between 0 and 1.
        lowest: lower bound of the possible values, 0 for an AUC and -1 for a difference.
    """
    positive_variance = positive_values.var(ddof=1) / len(positive_values)
    negative_variance = negative_values.var(ddof=1) / len(negative_values)
    variance = positive_variance + negative_variance
    mean, margin = positive_values.mean(), norm.ppf((1 + confidence_level) / 2) * np.sqrt(variance)
    return Interval(float(max(lowest, mean - margin)), float(min(1.0, mean + margin)))


def compute_wilson_interval(successes: int, trials: int, confidence_level: float = 0.95) -> Interval:
    """Compute the confidence interval of a proportion by Wilson's score method; [0, 1] if `trials` is 0."""
    if trials == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, trials).proportion_ci(confidence_level, method="wilson")
    return Interval(float(interval.low), float(interval.high))
