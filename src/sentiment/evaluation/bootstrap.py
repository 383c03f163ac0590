"""Metrics of a classifier as functions of review weights, and their stratified bootstrap.

A bootstrap sample gives each review the number of times that it was drawn as its weight, so that a metric of
many samples is a few array operations over one sorted order of the reviews.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from sentiment.evaluation.calibration import assign_bins
from sentiment.intervals import Interval

RESAMPLES = 1000
"""Number of bootstrap samples: a bound of a 95% interval is then the 25th value from the end."""

BLOCK_VALUES = 1_000_000
"""Weights held in memory at a time, 8 MB: larger blocks are slower, since they do not fit the cache."""

CALIBRATION_ERROR = "expected_calibration_error"
"""Name of the metric whose interval is not that of percentiles."""


@dataclass(frozen=True)
class WeightedMetrics:
    """Metrics of predictions with a weight for each review, in descending order of score.

    Attributes:
        positive: 1.0 for a positive review, shape (n_reviews,).
        predicted: 1.0 for a review that is predicted positive, shape (n_reviews,).
        last: indices of the last review of each distinct score, shape (n_scores,).
        losses: columns log loss (nats) and Brier score of each review, shape (n_reviews, 2).
        excess: column of the review's calibration bin: probability minus label, else 0; shape
            (n_reviews, n_bins).
        order: position of each of these reviews in the input, shape (n_reviews,).
    """

    positive: NDArray[np.float64]
    predicted: NDArray[np.float64]
    last: NDArray[np.intp]
    losses: NDArray[np.float64]
    excess: NDArray[np.float64]
    order: NDArray[np.intp]

    @classmethod
    def prepare(
        cls,
        labels: NDArray[np.integer],
        probabilities: NDArray[np.floating],
        threshold: float,
        scores: NDArray[np.floating] | None = None,
    ) -> "WeightedMetrics":
        """Compute all that does not depend on the weights.

        Args:
            labels: true labels, 0 or 1, shape (n_reviews,).
            probabilities: predicted probabilities of label 1, shape (n_reviews,).
            threshold: lowest probability at which a review is predicted positive.
            scores: scores that rank the reviews, shape (n_reviews,); None ranks them by probability.
        """
        scores = probabilities if scores is None else scores
        order = np.argsort(-scores, kind="stable")
        positive, sorted_probabilities = labels[order].astype(np.float64), probabilities[order]
        smallest = np.finfo(np.float64).eps  # as scikit-learn: a wrong certain prediction has a finite loss
        clipped = np.clip(sorted_probabilities, smallest, 1 - smallest)
        bins = assign_bins(sorted_probabilities)
        return cls(
            positive=positive,
            predicted=(sorted_probabilities >= threshold).astype(np.float64),
            last=np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1),
            losses=np.stack(
                [
                    -xlogy(positive, clipped) - xlogy(1 - positive, 1 - clipped),
                    (sorted_probabilities - positive) ** 2,
                ],
                axis=1,
            ),
            excess=(sorted_probabilities - positive)[:, None] * (bins[:, None] == np.arange(bins.max() + 1)),
            order=order,
        )

    def compute(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Compute the metrics for each row of weights.

        Args:
            weights: weight of each review in the order of the input, shape (n_samples, n_reviews); in
                each sample, both classes have weights above 0.

        Returns:
            Metrics by name, each of shape (n_samples,). Precision is 0 if no review is predicted positive.
        """
        weights = weights[:, self.order]
        total, positive = weights.sum(1), weights @ self.positive
        predicted, true_positive = weights @ self.predicted, weights @ (self.positive * self.predicted)
        losses = weights @ self.losses / total[:, None]
        return {
            "average_precision": self._compute_average_precision(weights),
            "accuracy": (total - positive - predicted + 2 * true_positive) / total,
            "precision": true_positive / np.maximum(predicted, 1),
            "recall": true_positive / positive,
            "f1": 2 * true_positive / (predicted + positive),
            "log_loss": losses[:, 0],
            "brier_score": losses[:, 1],
            CALIBRATION_ERROR: np.abs(weights @ self.excess).sum(1) / total,
        }

    def compute_calibration_noise(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute how far the bins of each sample are from those of all reviews, as a calibration error.

        Args:
            weights: see `compute`.

        Returns:
            Mean absolute deviation over the reviews, shape (n_samples,).
        """
        deviations: NDArray[np.float64] = np.abs((weights[:, self.order] - 1) @ self.excess).sum(1)
        return deviations / len(self.order)

    def _compute_average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over thresholds of the increase in recall times the precision."""
        predicted = np.cumsum(weights, axis=1)[:, self.last]
        true_positive = np.cumsum(weights * self.positive, axis=1)[:, self.last]
        increase = np.diff(true_positive, axis=1, prepend=0.0)
        areas: NDArray[np.float64] = (increase * true_positive / np.maximum(predicted, 1)).sum(1)
        return areas / true_positive[:, -1]


def compute_bootstrap_intervals(
    metrics: WeightedMetrics,
    confidence_level: float,
    groups: NDArray[np.integer] | None,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Compute percentile intervals of all metrics by a stratified bootstrap over reviews or groups.

    Noise raises the calibration error, and a resample has that noise twice, so that its percentiles are too
    high. Its lower bound is therefore the estimate minus a percentile of the noise, an upper limit of what
    noise has added: a calibrated model gets 0.

    Args:
        metrics: the prepared predictions.
        confidence_level: confidence level of the intervals.
        groups: group of each review, shape (n_reviews,), drawn as a whole; None draws single reviews.
        seed: seed of the samples.
        resamples: number of samples.

    Returns:
        Intervals by the name of the metric; equal arguments give equal intervals.
    """
    labels = np.empty(len(metrics.order), dtype=np.int8)
    labels[metrics.order] = metrics.positive
    samples, noise = [], []
    for weights in iter_weights(labels, groups, seed, resamples):
        samples.append(metrics.compute(weights))
        noise.append(metrics.compute_calibration_noise(weights))
    tail = (1 - confidence_level) / 2
    intervals = {}
    for name in samples[0]:
        low, high = np.quantile(np.concatenate([sample[name] for sample in samples]), [tail, 1 - tail])
        intervals[name] = Interval(float(low), float(high))
    (error,) = metrics.compute(np.ones((1, len(labels))))[CALIBRATION_ERROR]
    low = max(0.0, error - np.quantile(np.concatenate(noise), 1 - tail))
    intervals[CALIBRATION_ERROR] = Interval(float(low), max(float(error), intervals[CALIBRATION_ERROR].high))
    return intervals


def iter_weights(
    labels: NDArray[np.integer], groups: NDArray[np.integer] | None, seed: int, resamples: int
) -> Iterator[NDArray[np.float64]]:
    """Yield blocks of bootstrap samples as weights of the reviews, shape (n_samples, n_reviews).

    Groups are drawn with replacement within three strata: those with positive reviews only, with negative
    reviews only, and with both, so that each sample has both classes. Without groups, these are the classes.
    """
    rng = np.random.default_rng(seed)
    codes = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    has_positive = np.bincount(codes, weights=labels == 1) > 0
    has_negative = np.bincount(codes, weights=labels == 0) > 0
    classes = has_positive + 2 * has_negative
    strata = [np.flatnonzero(classes == of_stratum) for of_stratum in (1, 2, 3)]
    block = max(1, BLOCK_VALUES // len(labels))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.zeros((size, n_groups))
        for members in strata:
            drawn = rng.integers(0, max(1, len(members)), (size, len(members)))
            flat = (drawn + len(members) * np.arange(size)[:, None]).ravel()
            counts[:, members] = np.bincount(flat, minlength=size * len(members)).reshape(size, len(members))
        yield counts[:, codes]
