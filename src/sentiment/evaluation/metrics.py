"""Metrics of a model on a split, with confidence intervals; which of two models is selected."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from sentiment.errors import UserError
from sentiment.evaluation.bootstrap import WeightedMetrics, compute_bootstrap_intervals
from sentiment.intervals import (
    DECIMALS,
    Gain,
    check_scores,
    compute_delong_gain,
    compute_wilson_interval,
    estimate_auc,
)
from sentiment.model.classifier import SentimentClassifier, compute_probabilities, predict_logits
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate
from sentiment.tokens.token_store import TokenizedReviews

SEED = 0
"""Seed of the bootstrap intervals."""


def compute_classification_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    *,
    threshold: float,
    confidence_level: float,
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
        groups: group of each review, within which reviews are correlated, shape (n_reviews,); None if all are
            independent.
        seed: seed of the bootstrap.

    Returns:
        Metrics by name, rounded to 6 decimals: `auc`, `average_precision`, `accuracy`, `precision`, `recall`,
        `f1`, `log_loss` (nats per review), `brier_score` and `expected_calibration_error`; `interval` has the
        bounds by metric, `confusion` the numbers of reviews. Precision is 0 if none is predicted positive.

    Raises:
        UserError: a probability is not between 0 and 1, a label is neither 0 nor 1, or a class has fewer than
            two reviews or groups.
    """
    check_scores(labels, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise UserError("the predicted probabilities must be between 0 and 1")
    auc = estimate_auc(labels, probabilities, groups)
    weighted = WeightedMetrics.prepare(labels, probabilities, threshold)
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


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on the validation and the test split.

    Attributes:
        validation: metrics of the validation split, from `compute_classification_metrics`.
        test: metrics of the test split, from `compute_classification_metrics`.
        test_probabilities: predicted probability that each test review is positive, shape (n_test_reviews,).
    """

    validation: dict[str, Any]
    test: dict[str, Any]
    test_probabilities: NDArray[np.float64]

    def __str__(self) -> str:
        return f"AUC {self.validation['auc']:.4f} on validation, {self.test['auc']:.4f} on test"

    def metrics_by_split(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each split, by the name of the split."""
        return {"validation": self.validation, "test": self.test}

    def scalar_metrics(self, split: Literal["validation", "test"]) -> dict[str, float]:
        """Return the scalar metrics of a split, named `test.auc` and so on, without intervals and counts."""
        metrics = (self.validation if split == "validation" else self.test).items()
        return {f"{split}.{name}": value for name, value in metrics if not isinstance(value, dict)}


def evaluate_model(
    name: str,
    model: SentimentClassifier,
    validation: TokenizedReviews,
    test: TokenizedReviews,
    params: EvaluateParams,
) -> Evaluation:
    """Predict the reviews of both splits with a model and compute its metrics.

    Args:
        name: name of the model, shown in the progress bars.
        model: model to evaluate.
        validation: validation split.
        test: test split.
        params: decision threshold and confidence level.
    """
    validation_probabilities = compute_probabilities(
        predict_logits(model, validation, f"{name} on validation")
    )
    test_probabilities = compute_probabilities(predict_logits(model, test, f"{name} on test"))
    compute_metrics = partial(
        compute_classification_metrics, threshold=0.5, confidence_level=params.confidence_level
    )
    return Evaluation(
        compute_metrics(validation.labels, validation_probabilities),
        compute_metrics(test.labels, test_probabilities),
        test_probabilities,
    )


def select_model(validation_auc: Mapping[Candidate, float]) -> Candidate:
    """Return the model with the higher validation AUC; the baseline if they are equal."""
    return "tuned" if validation_auc["tuned"] > validation_auc["baseline"] else "baseline"


def compute_test_gain(
    model: Evaluation, reference: Evaluation, labels: NDArray[np.integer], params: EvaluateParams
) -> Gain:
    """Compute the gain in test AUC of a model over a reference model, with DeLong's paired interval.

    Args:
        model: evaluation of the model.
        reference: evaluation of the reference model. If it is that of the same model, the gain and both
            bounds of its interval are 0.
        labels: labels of the test reviews, 0 or 1, shape (n_test_reviews,).
        params: parameters that include the confidence level of the interval.
    """
    scores, reference_scores = model.test_probabilities, reference.test_probabilities
    return Gain(*compute_delong_gain(labels, scores, reference_scores, params.confidence_level))
