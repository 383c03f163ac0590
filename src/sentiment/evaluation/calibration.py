"""Calibration of probabilities: temperature, calibration error, reliability table; the decision threshold."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from sentiment.errors import UserError
from sentiment.intervals import DECIMALS, check_scores
from sentiment.params.evaluate import FixedThreshold, PrecisionThreshold, Threshold

TEMPERATURES = (0.05, 20.0)
"""Range of the temperature. The ends are for logits that separate the classes, or rank them in reverse."""

CALIBRATION_BINS = 15
"""Number of bins of the calibration error (Guo et al. 2017, "On calibration of modern neural networks")."""

BISECTIONS = 60
"""Halvings of the range of the temperature; more than a double can resolve."""


def fit_temperature(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> float:
    """Fit the temperature T that minimises the log loss of sigmoid(logits / T) (Guo et al. 2017).

    The loss is convex in 1 / T, so the sign of its derivative locates the minimum: bisection takes the same
    steps on every machine and needs no starting value.

    Args:
        labels: true labels, 0 or 1, shape (n_reviews,).
        logits: logits of label 1, shape (n_reviews,).

    Returns:
        The temperature within `TEMPERATURES`, rounded to 6 decimals; 1 if all logits are 0, which no
        temperature changes.

    Raises:
        UserError: a logit is not finite, or a class has fewer than two reviews.
    """
    check_scores(labels, logits)
    logits = logits.astype(np.float64)
    if not logits.any():
        return 1.0

    def is_loss_rising(inverse_temperature: float) -> bool:
        return bool(np.mean(logits * (expit(inverse_temperature * logits) - labels)) > 0)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if is_loss_rising(low):
        return TEMPERATURES[1]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_loss_rising(middle) else (middle, high)
    return round(1 / high, DECIMALS)


def choose_threshold(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], params: Threshold
) -> float:
    """Choose the decision threshold: the lowest probability at which a review is predicted positive.

    Args:
        labels: true labels of the validation reviews, 0 or 1, shape (n_reviews,).
        probabilities: predicted probabilities of label 1, shape (n_reviews,).
        params: how the threshold is chosen.

    Returns:
        A threshold above 0 and below 1 with at most 6 decimals. Of several with the highest F1, the lowest.

    Raises:
        UserError: no threshold reaches the precision, a probability is not finite, or a class has fewer than
            two reviews.
    """
    if isinstance(params, FixedThreshold):
        return params.value
    check_scores(labels, probabilities)
    thresholds, precision, f1 = _evaluate_thresholds(labels, probabilities.astype(np.float64))
    if not isinstance(params, PrecisionThreshold):
        return float(thresholds[np.argmax(f1)])
    reached = np.flatnonzero(precision >= params.precision)
    if not len(reached):
        highest = np.floor(precision.max() * 1e4) / 1e4  # not rounded up: the message names a reachable value
        raise UserError(
            f"evaluate.threshold.precision: no threshold has a precision of {params.precision:g} on the "
            f"validation split; the highest is {highest:.4f}"
        )
    return float(thresholds[reached[0]])


def _evaluate_thresholds(
    labels: NDArray[np.integer], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute precision and F1 at every threshold of 6 decimals that classifies the reviews differently.

    The thresholds are rounded before they are evaluated: rounding the best one could move it past a review.

    Returns:
        Thresholds in ascending order, and precision and F1 at each, which are 0 without a true positive.
    """
    scale = 10**DECIMALS
    steps = np.unique(np.clip(np.floor(probabilities * scale), 1, scale - 1))
    thresholds = steps / scale
    order = np.argsort(probabilities)
    first = np.searchsorted(
        probabilities[order], thresholds
    )  # the reviews from here on are predicted positive
    predicted = len(labels) - first
    true_positives = np.append(np.cumsum(labels[order][::-1])[::-1], 0)[first]
    f1 = 2 * true_positives / (predicted + np.count_nonzero(labels == 1))
    return thresholds, true_positives / np.maximum(predicted, 1), f1


def assign_bins(probabilities: NDArray[np.floating], bins: int = CALIBRATION_BINS) -> NDArray[np.intp]:
    """Assign probabilities to bins of about equal numbers of reviews; equal ones to the same bin.

    Bins of equal width would put most reviews of an accurate model into the first and the last one. Bins of
    equal mass estimate the calibration error with less bias (Roelofs et al. 2022, "Mitigating bias in
    calibration error estimation").

    Returns:
        Indices of the bins in ascending order of probability, from 0, without empty bins, shape (n_reviews,).
    """
    edges = np.quantile(probabilities, np.arange(1, bins) / bins, method="higher")
    codes = np.searchsorted(np.unique(edges), probabilities, side="right")
    return np.unique(codes, return_inverse=True)[1]


def compute_calibration_error(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], bins: int = CALIBRATION_BINS
) -> float:
    """Compute the expected calibration error, between 0 and 1.

    It is the mean, weighted by reviews, of the absolute difference between a bin's mean probability and its
    fraction of positive reviews (Naeini et al. 2015; bins: see `assign_bins`).
    """
    assigned = assign_bins(probabilities, bins)
    differences = np.bincount(assigned, weights=probabilities - labels)
    return float(np.abs(differences).sum() / len(labels))


def build_reliability_table(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], bins: int = CALIBRATION_BINS
) -> pd.DataFrame:
    """Build the table of a reliability diagram, a row per bin of `assign_bins`.

    Returns:
        Columns `bin` (from 1), `mean_probability`, `fraction_positive` and `reviews`.
    """
    assigned = assign_bins(probabilities, bins)
    reviews = np.bincount(assigned)
    return pd.DataFrame(
        {
            "bin": np.arange(1, len(reviews) + 1),
            "mean_probability": np.bincount(assigned, weights=probabilities) / reviews,
            "fraction_positive": np.bincount(assigned, weights=labels) / reviews,
            "reviews": reviews,
        }
    )
