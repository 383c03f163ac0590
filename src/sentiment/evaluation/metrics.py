"""Metrics of a model on a split, with confidence intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from sentiment.errors import UserError
from sentiment.evaluation.bootstrap import WeightedMetrics, compute_bootstrap_intervals
from sentiment.intervals import (
    DECIMALS,
    check_scores,
    compute_wilson_interval,
    estimate_auc,
)

SEED = 0
"""Seed of the bootstrap intervals."""


def compute_classification_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    *,
    threshold: float,
    confidence_level: float,
    scores: NDArray[np.floating] | None = None,
    groups: NDArray[np.integer] | None = None,
    seed: int = SEED,
) -> dict[str, Any]:
    """Compute the metrics of a model on one split, with confidence intervals and the confusion matrix.

    The intervals are DeLong's for the AUC (Obuchowski's with groups), Wilson's for accuracy, precision and
    recall, and a stratified bootstrap for the rest. Wilson's assumes independent reviews: with groups, the
    bootstrap takes its place.

    Args:
        labels: true labels, 0 or 1, at least two of each, shape (n_reviews,).
        probabilities: predicted probabilities of label 1, shape (n_reviews,).
        threshold: lowest probability at which a review is predicted positive.
        confidence_level: confidence level of the intervals.
        scores: logits that the probabilities were computed from, by which `auc` and `average_precision` rank
            the reviews, shape (n_reviews,); None ranks them by probability. Probabilities of different large
            logits are equal, since they are rounded to 1.
        groups: group of each review, within which reviews are correlated, shape (n_reviews,); None if all are
            independent.
        seed: seed of the bootstrap.

    Returns:
        Metrics by name, rounded to 6 decimals: `auc`, `average_precision`, `accuracy`, `precision`, `recall`,
        `f1`, `log_loss` (nats per review), `brier_score` and `expected_calibration_error`; `interval` has the
        bounds by metric, `confusion` the numbers of reviews. Precision is 0 if none is predicted positive.

    Raises:
        UserError: a probability is not between 0 and 1, a score is not finite, a label is neither 0 nor 1, or
            a class has fewer than two reviews or groups.
    """
    check_scores(labels, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise UserError("the predicted probabilities must be between 0 and 1")
    ranked_by = probabilities if scores is None else scores
    auc = estimate_auc(labels, ranked_by, groups)
    weighted = WeightedMetrics.prepare(labels, probabilities, threshold, ranked_by)
    metrics = {"auc": auc.value}
    metrics |= {name: value for name, (value,) in weighted.compute(np.ones((1, len(labels)))).items()}
    intervals = {"auc": auc.compute_interval(confidence_level)}
    intervals |= compute_bootstrap_intervals(weighted, confidence_level, groups, seed)

    predicted = (probabilities >= threshold).astype(np.int8)
    ((true_negative, false_positive), (false_negative, true_positive)) = confusion_matrix(
        labels, predicted, labels=[0, 1]
    ).tolist()
    proportions = {
        "accuracy": (true_positive + true_negative, len(labels)),
        "precision": (true_positive, true_positive + false_positive),
        "recall": (true_positive, true_positive + false_negative),
    }
    for name, (count, total) in proportions.items():
        if groups is None or total == 0:
            intervals[name] = compute_wilson_interval(count, total, confidence_level)
    return {
        **{name: round(float(value), DECIMALS) for name, value in metrics.items()},
        "interval": {name: interval.to_dict() for name, interval in intervals.items()},
        "confusion": {
            "true_negative": true_negative,
            "false_positive": false_positive,
            "false_negative": false_negative,
            "true_positive": true_positive,
        },
    }
