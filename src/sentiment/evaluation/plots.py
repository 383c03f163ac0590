"""Curves as tables for `dvc plots`, and as figures for MLflow."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    precision_recall_curve,
    roc_curve,
)

from sentiment.outputs import write_csv

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
