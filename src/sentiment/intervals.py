"""Confidence intervals of the metrics that tune and evaluate report."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

from sentiment.errors import UserError

DECIMALS = 6
"""Number of decimal places of values in metrics files."""


@dataclass(frozen=True)
class Interval:
    """Lower and upper bound of a confidence interval."""

    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the rounded bounds as they are written to a metrics file."""
        return {name: round(value, DECIMALS) for name, value in asdict(self).items()}


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
        return {"auc": round(self.auc, DECIMALS), "interval": self.interval.to_dict()}


@dataclass(frozen=True)
class Estimate:
    """An estimate that is normally distributed in large samples: an AUC or a difference of two AUCs.

    Attributes:
        value: the estimate.
        standard_error: its standard error.
        lowest: lower bound of the possible values, 0 for an AUC and -1 for a difference.
    """

    value: float
    standard_error: float
    lowest: float

    def compute_half_width(self, confidence_level: float) -> float:
        """Return half the width of the confidence interval before it is clipped."""
        return float(norm.ppf((1 + confidence_level) / 2) * self.standard_error)

    def compute_interval(self, confidence_level: float) -> Interval:
        """Return the normal confidence interval, clipped to the possible values."""
        half_width = self.compute_half_width(confidence_level)
        return Interval(max(self.lowest, self.value - half_width), min(1.0, self.value + half_width))


def compute_delong_interval(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    confidence_level: float = 0.95,
    groups: NDArray[np.integer] | None = None,
) -> Interval:
    """Compute the confidence interval of the ROC AUC by DeLong's method; see `estimate_auc`."""
    return estimate_auc(labels, scores, groups).compute_interval(confidence_level)


def compute_delong_gain(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    confidence_level: float = 0.95,
    groups: NDArray[np.integer] | None = None,
) -> tuple[float, Interval]:
    """Compute the gain in ROC AUC of `scores` over `reference` and its paired interval.

    See `estimate_auc_difference`.
    """
    estimate = estimate_auc_difference(labels, scores, reference, groups)
    return estimate.value, estimate.compute_interval(confidence_level)


def estimate_auc(
    labels: NDArray[np.integer], scores: NDArray[np.floating], groups: NDArray[np.integer] | None = None
) -> Estimate:
    """Estimate the ROC AUC, with DeLong's standard error.

    Sources: DeLong et al. 1988, in the O(n log n) form of Sun and Xu 2014; with groups, Obuchowski 1997
    (Biometrics 53:567), for reviews that are correlated within their group. If every review is a group of its
    own, her standard error equals DeLong's.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits, higher for a more positive review, shape (n_reviews,).
        groups: group of each review, such as its film, shape (n_reviews,); None if all are independent.

    Raises:
        UserError: an input is invalid, or a class has fewer than two reviews or groups, so that its variance
            is not defined.
    """
    positive_values, negative_values = _compute_placements(labels, scores)
    return _estimate_mean(labels, positive_values, negative_values, groups, lowest=0.0)


def estimate_auc_difference(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    groups: NDArray[np.integer] | None = None,
) -> Estimate:
    """Estimate the ROC AUC of `scores` minus that of `reference`, with the standard error of paired AUCs.

    The two AUCs are correlated, since both models score the same reviews. The paired standard error takes
    this into account and is usually smaller than two separate ones suggest.
    Sources: DeLong et al. 1988, section on comparing areas; with groups, Obuchowski 1997.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits of the model, higher for a more positive review, shape (n_reviews,).
        reference: scores or logits of the reference model for the same reviews, shape (n_reviews,).
        groups: group of each review, shape (n_reviews,); None if all are independent.

    Raises:
        UserError: see `estimate_auc`.
    """
    positive, negative = _compute_placements(labels, scores)
    reference_positive, reference_negative = _compute_placements(labels, reference)
    return _estimate_mean(
        labels, positive - reference_positive, negative - reference_negative, groups, lowest=-1.0
    )


def estimate_part_difference(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    members: NDArray[np.bool_],
    groups: NDArray[np.integer] | None = None,
) -> Estimate:
    """Estimate the ROC AUC of a part of the reviews minus that of all reviews, with its standard error.

    The two AUCs are correlated, since the reviews of the part count in both. The placement values within the
    part, centred and scaled by the inverse of the part's proportion of the class, are paired with those
    among all reviews.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        scores: scores or logits, higher for a more positive review, shape (n_reviews,).
        members: whether each review is in the part, shape (n_reviews,).
        groups: group of each review, shape (n_reviews,); None if all are independent.

    Raises:
        UserError: see `estimate_auc`; the part also needs two reviews of each class.
    """
    differences = []
    whole = _compute_placements(labels, scores)
    part = _compute_placements(labels[members], scores[members])
    for label, whole_values, part_values in zip((1, 0), whole, part, strict=True):
        inside = members[labels == label]
        mean = part_values.mean()
        values = mean - whole_values
        values[inside] += (part_values - mean) / inside.mean()
        differences.append(values)
    positive_values, negative_values = differences
    return _estimate_mean(labels, positive_values, negative_values, groups, lowest=-1.0)


def check_scores(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> None:
    """Check that scores are finite and that their labels are 0 or 1, with two reviews of each.

    Raises:
        UserError: they are not.
    """
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise UserError(f"labels of shape {labels.shape} and scores of shape {scores.shape} do not match")
    if invalid := int(np.count_nonzero(~np.isfinite(scores))):
        raise UserError(f"{invalid:,} of {len(scores):,} scores are not finite numbers")
    positive, negative = (int(np.count_nonzero(labels == label)) for label in (1, 0))
    if positive + negative != len(labels):
        raise UserError(
            f"{len(labels) - positive - negative:,} of {len(labels):,} labels are neither 0 nor 1"
        )
    if min(positive, negative) < 2:
        raise UserError(
            f"the metrics need two reviews of each class, found {positive} positive and {negative} negative"
        )


def _compute_placements(
    labels: NDArray[np.integer], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the placement values of DeLong's method; reviews with equal scores count half.

    Returns:
        For each positive review the share of negative reviews with a lower score, shape (n_positive,), and
        for each negative review the share of positive reviews with a higher score, shape (n_negative,).
    """
    check_scores(labels, scores)
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    pooled_ranks = rankdata(np.concatenate([positive, negative]))
    return (pooled_ranks[:m] - rankdata(positive)) / n, 1 - (pooled_ranks[m:] - rankdata(negative)) / m


def _estimate_mean(
    labels: NDArray[np.integer],
    positive_values: NDArray[np.float64],
    negative_values: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
    lowest: float,
) -> Estimate:
    """Estimate the mean of placement values or of their differences, which is the same in both classes.

    Obuchowski's variance is S10 / m + S01 / n + 2 S11 / (m n). S10 and S01 are the variances of the sums of
    each group's positive and negative values, S11 is their covariance, and each sum is centred on the mean
    times its number of reviews. Without groups, S11 is 0 and the rest is DeLong's variance.
    """
    mean = float(positive_values.mean())
    if groups is None:
        variance = sum(values.var(ddof=1) / len(values) for values in (positive_values, negative_values))
        return Estimate(mean, float(np.sqrt(variance)), lowest)
    if groups.shape != labels.shape:
        raise UserError(f"groups of shape {groups.shape} and labels of shape {labels.shape} do not match")
    names, codes = np.unique(groups, return_inverse=True)
    variance, sums = 0.0, []
    for values, of_class in ((positive_values, codes[labels == 1]), (negative_values, codes[labels == 0])):
        present = len(np.unique(of_class))
        if present < 2:
            raise UserError(f"the metrics need reviews of each class in two groups, found {present}")
        centred_sums = np.bincount(of_class, weights=values - values.mean(), minlength=len(names))
        variance += present / (present - 1) * float(centred_sums @ centred_sums) / len(values) ** 2
        sums.append(centred_sums / len(values))
    covariance = len(names) / (len(names) - 1) * float(sums[0] @ sums[1])
    # The total is at least the sum of (positive + negative sum)²; below 0, it is a rounding error.
    return Estimate(mean, float(np.sqrt(max(0.0, variance + 2 * covariance))), lowest)


def compute_wilson_interval(successes: int, trials: int, confidence_level: float = 0.95) -> Interval:
    """Compute the confidence interval of a proportion by Wilson's score method; [0, 1] if `trials` is 0."""
    if trials == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, trials).proportion_ci(confidence_level, method="wilson")
    return Interval(float(interval.low), float(interval.high))
