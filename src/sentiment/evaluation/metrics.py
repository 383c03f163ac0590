"""Metrics of one model on one split, and its curves for `dvc plots` and MLflow."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from sentiment.files import write_csv
from sentiment.intervals import delong_interval, wilson_interval


def classification_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    threshold: float,
    confidence_level: float,
) -> dict[str, Any]:
    """Return AUC, accuracy, precision and recall with confidence intervals, F1, and the counts.

    labels: shape (n,), 0 or 1, both present. probabilities: shape (n,), of label 1. A review counts as
    positive from `threshold` on. confidence_level: of the intervals (DeLong's for AUC, Wilson's for shares).
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
        "auc": delong_interval(labels, probabilities, confidence_level),
        **{name: wilson_interval(part, whole, confidence_level) for name, (part, whole) in shares.items()},
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


mpl.use("Agg")  # a stage has no screen

CURVE_POINTS = 500
"""Points kept of a curve in a table: more than a plot can show."""


def write_curves(
    folder: Path, labels: NDArray[np.integer], probabilities: NDArray[np.floating], threshold: float
) -> None:
    """Write roc.csv, precision_recall.csv and confusion.csv."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, probabilities)
    precision, recall, _ = precision_recall_curve(labels, probabilities, drop_intermediate=True)
    predicted = (probabilities >= threshold).astype(int)
    tables = {
        "roc": _thinned(pd.DataFrame({"fpr": false_positive_rate, "tpr": true_positive_rate})),
        "precision_recall": _thinned(pd.DataFrame({"recall": recall, "precision": precision})),
        "confusion": pd.DataFrame({"actual": labels, "predicted": predicted}).replace(
            {0: "negative", 1: "positive"}
        ),
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)


def figures(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], threshold: float, name: str
) -> dict[str, Figure]:
    """Return the ROC, precision-recall and confusion figures of a model, by file name."""
    made = {}
    for file, display in (("roc", RocCurveDisplay), ("precision_recall", PrecisionRecallDisplay)):
        made[f"{file}.png"], axes = _figure()
        display.from_predictions(labels, probabilities, name=name, plot_chance_level=True, ax=axes)
    made["confusion.png"], axes = _figure()
    predicted = (probabilities >= threshold).astype(int)
    ConfusionMatrixDisplay.from_predictions(
        labels, predicted, display_labels=["negative", "positive"], cmap="Blues", colorbar=False, ax=axes
    )
    return made


def _figure() -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(figsize=(6, 5), dpi=120, layout="constrained")
    return figure, figure.subplots()


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    rows = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return curve.iloc[rows]
