"""Figures of one model on one split."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from sentiment.intervals import delong_interval, wilson_interval


def classification_metrics(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], threshold: float, level: float
) -> dict[str, Any]:
    """Return AUC, accuracy, precision and recall with confidence intervals, F1, and the counts.

    labels: shape (n,), 0 or 1, both present. probabilities: shape (n,), of label 1. A review counts as
    positive from `threshold` on. level: of the intervals (DeLong's for AUC, Wilson's for shares).
    Precision and recall are 0 where nothing was, or should have been, called positive.
    """
    predicted = (probabilities >= threshold).astype(np.int8)
    ((true_negative, false_positive), (false_negative, true_positive)) = confusion_matrix(
        labels, predicted, labels=[0, 1]
    ).tolist()
    shares = {
        "accuracy": (true_positive + true_negative, len(labels)),
        "precision": (true_positive, true_positive + false_positive),
        "recall": (true_positive, true_positive + false_negative),
    }
    figures: dict[str, Any] = {
        "auc": float(roc_auc_score(labels, probabilities)),
        **{name: part / whole if whole else 0.0 for name, (part, whole) in shares.items()},
        "f1": float(f1_score(labels, predicted, zero_division=0.0)),
    }
    intervals = {
        "auc": delong_interval(labels, probabilities, level),
        **{name: wilson_interval(part, whole, level) for name, (part, whole) in shares.items()},
    }
    return {
        **{name: round(value, 6) for name, value in figures.items()},
        "interval": {
            name: {end: round(v, 6) for end, v in asdict(i).items()} for name, i in intervals.items()
        },
        "confusion": {
            "true_negative": true_negative,
            "false_positive": false_positive,
            "false_negative": false_negative,
            "true_positive": true_positive,
        },
    }
