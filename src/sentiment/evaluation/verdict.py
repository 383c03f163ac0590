"""A model against the validation and the test split, and against another model on the latter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentiment.evaluation.metrics import classification_metrics
from sentiment.intervals import Gain, delong_gain
from sentiment.model.classifier import SentimentClassifier, compute_probabilities, predict_logits
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate
from sentiment.tokens.token_store import TokenizedReviews


def select(validation_auc: Mapping[Candidate, float]) -> Candidate:
    """Return the model with the higher validation AUC; the baseline where they are equal."""
    return "tuned" if validation_auc["tuned"] > validation_auc["baseline"] else "baseline"


@dataclass(frozen=True)
class Judgement:
    """Figures on both splits; `test_probabilities`: shape (test reviews,)."""

    validation: dict[str, Any]
    test: dict[str, Any]
    test_probabilities: NDArray[np.float64]

    def __str__(self) -> str:
        return f"AUC {self.validation['auc']:.4f} on validation, {self.test['auc']:.4f} on test"

    def by_split(self) -> dict[str, dict[str, Any]]:
        """Return the figures under the names of the splits."""
        return {"validation": self.validation, "test": self.test}

    def test_figures(self) -> dict[str, float]:
        """Return the plain figures as `test_auc`, `test_f1` and so on, without intervals and counts."""
        return {f"test_{name}": value for name, value in self.test.items() if not isinstance(value, dict)}


def judge(
    name: str,
    model: SentimentClassifier,
    validation: TokenizedReviews,
    test: TokenizedReviews,
    params: EvaluateParams,
) -> Judgement:
    """Score both splits. name: of the model, in the progress shown."""
    at_validation = compute_probabilities(predict_logits(model, validation, f"{name} on validation"))
    at_test = compute_probabilities(predict_logits(model, test, f"{name} on test"))
    return Judgement(
        classification_metrics(validation.labels, at_validation, params.threshold, params.confidence_level),
        classification_metrics(test.labels, at_test, params.threshold, params.confidence_level),
        at_test,
    )


def gain_on_test(
    model: Judgement, reference: Judgement, labels: NDArray[np.integer], params: EvaluateParams
) -> Gain:
    """Return by how much a model's test AUC exceeds another's, with the interval of the paired difference.

    labels: of the test reviews, shape (n,). A model gains 0 over itself, with an interval from 0 to 0.
    """
    ours, theirs = model.test_probabilities, reference.test_probabilities
    return Gain(*delong_gain(labels, ours, theirs, params.confidence_level))
