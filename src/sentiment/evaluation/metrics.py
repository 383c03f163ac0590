"""Metrics of a model on a split, with confidence intervals; which of two models is selected."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    roc_auc_score,
)

from sentiment.intervals import Gain, compute_delong_gain, compute_delong_interval, compute_wilson_interval
from sentiment.model.classifier import SentimentClassifier, compute_probabilities, predict_logits
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate
from sentiment.tokens.token_store import TokenizedReviews


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
    threshold, confidence_level = 0.5, params.confidence_level
    return Evaluation(
        compute_classification_metrics(
            validation.labels, validation_probabilities, threshold, confidence_level
        ),
        compute_classification_metrics(test.labels, test_probabilities, threshold, confidence_level),
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


def compute_classification_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    threshold: float,
    confidence_level: float,
) -> dict[str, Any]:
    """Compute AUC, accuracy, precision, recall, F1, confidence intervals and the confusion matrix.

    Args:
        labels: true labels, 0 or 1, at least two of each, shape (n_reviews,).
        probabilities: predicted probabilities of label 1, shape (n_reviews,).
        threshold: lowest probability at which a review is predicted positive.
        confidence_level: confidence level of the intervals, which are DeLong's for the AUC and Wilson's for
            the proportions.

    Returns:
        Metrics by name, rounded to 6 decimals. Precision and recall are 0 if their denominator is 0.
    """
    predicted = (probabilities >= threshold).astype(np.int8)
    ((true_negative, false_positive), (false_negative, true_positive)) = confusion_matrix(
        labels, predicted, labels=[0, 1]
    ).tolist()
    proportions = {
        "accuracy": (true_positive + true_negative, len(labels)),
        "precision": (true_positive, true_positive + false_positive),
        "recall": (true_positive, true_positive + false_negative),
    }
    metrics: dict[str, Any] = {
        "auc": float(roc_auc_score(labels, probabilities)),
        **{name: count / total if total else 0.0 for name, (count, total) in proportions.items()},
        "f1": float(f1_score(labels, predicted, zero_division=0.0)),
    }
    intervals = {
        "auc": compute_delong_interval(labels, probabilities, confidence_level),
        **{
            name: compute_wilson_interval(count, total, confidence_level)
            for name, (count, total) in proportions.items()
        },
    }
    return {
        **{name: round(value, 6) for name, value in metrics.items()},
        "interval": {
            name: {bound: round(value, 6) for bound, value in asdict(interval).items()}
            for name, interval in intervals.items()
        },
        "confusion": {
            "true_negative": true_negative,
            "false_positive": false_positive,
            "false_negative": false_negative,
            "true_positive": true_positive,
        },
    }
