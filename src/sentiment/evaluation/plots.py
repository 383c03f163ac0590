"""Tables and plots of a model's predictions: ROC, precision-recall and confusion."""

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

from sentiment.files import write_csv

mpl.use("Agg")  # a stage has no screen

CURVE_POINTS = 500
"""Maximum number of points of a curve in a table; a plot cannot show more."""


def write_curves(
    folder: Path, labels: NDArray[np.integer], probabilities: NDArray[np.floating], threshold: float
) -> None:
    """Write the tables `roc.csv`, `precision_recall.csv` and `confusion.csv` for `dvc plots`."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, probabilities)
    precision, recall, _ = precision_recall_curve(labels, probabilities, drop_intermediate=True)
    predicted = (probabilities >= threshold).astype(int)
    tables = {
        "roc": _downsample(pd.DataFrame({"fpr": false_positive_rate, "tpr": true_positive_rate})),
        "precision_recall": _downsample(pd.DataFrame({"recall": recall, "precision": precision})),
        "confusion": pd.DataFrame({"actual": labels, "predicted": predicted}).replace(
            {0: "negative", 1: "positive"}
        ),
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)


def plot_curves(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], threshold: float, name: str
) -> dict[str, Figure]:
    """Plot the ROC curve, the precision-recall curve and the confusion matrix of a model.

    Returns:
        Matplotlib figures, by the name of the file in which MLflow stores them.
    """
    plots = {}
    for file, display in (("roc", RocCurveDisplay), ("precision_recall", PrecisionRecallDisplay)):
        plots[f"{file}.png"], axes = _new_figure()
        display.from_predictions(labels, probabilities, name=name, plot_chance_level=True, ax=axes)
    plots["confusion.png"], axes = _new_figure()
    predicted = (probabilities >= threshold).astype(int)
    ConfusionMatrixDisplay.from_predictions(
        labels, predicted, display_labels=["negative", "positive"], cmap="Blues", colorbar=False, ax=axes
    )
    return plots


def _new_figure() -> tuple[Figure, mpl.axes.Axes]:
    fig = Figure(figsize=(6, 5), dpi=120, layout="constrained")
    return fig, fig.subplots()


def _downsample(curve: pd.DataFrame) -> pd.DataFrame:
    """Return at most `CURVE_POINTS` evenly spaced rows of a curve, including the first and the last."""
    rows = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return curve.iloc[rows]
