"""Plots of all models on the test split: tables for `dvc plots`, and figures for MLflow."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    precision_recall_curve,
    roc_curve,
)

from sentiment.evaluation.calibration import build_reliability_table
from sentiment.evaluation.evaluated_model import EvaluatedModel
from sentiment.files import write_csv
from sentiment.model.classifier import compute_probabilities

mpl.use("Agg")  # a stage has no screen

CURVE_POINTS = 500
"""Maximum number of points of a curve in a table; a plot cannot show more."""

HISTOGRAM_BINS = 20
CLASSES = ["negative", "positive"]


def write_plot_tables(
    folder: Path, models: Sequence[EvaluatedModel], labels: NDArray[np.integer], slices: pd.DataFrame
) -> None:
    """Write the tables of `dvc plots`: a folder for each model, and `slices.csv`.

    Args:
        folder: output folder.
        models: evaluated models.
        labels: labels of the test reviews, 0 or 1, shape (n_test_reviews,).
        slices: AUC of the selected model by slice.
    """
    for model in models:
        for name, table in _build_tables(model, labels).items():
            write_csv(folder / model.name / f"{name}.csv", table)
    write_csv(folder / "slices.csv", slices)


def _build_tables(model: EvaluatedModel, labels: NDArray[np.integer]) -> dict[str, pd.DataFrame]:
    probabilities = model.probabilities("test")
    # The curves are of the logits: probabilities of different large logits are equal, rounded to 1.
    logits = model.logits["test"]
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, logits)
    precision, recall, _ = precision_recall_curve(labels, logits, drop_intermediate=True)
    predicted = (probabilities >= model.calibration.threshold).astype(int)
    return {
        "roc": _downsample(pd.DataFrame({"fpr": false_positive_rate, "tpr": true_positive_rate})),
        "precision_recall": _downsample(pd.DataFrame({"recall": recall, "precision": precision})),
        "confusion": pd.DataFrame({"actual": labels, "predicted": predicted}).replace(
            dict(enumerate(CLASSES))
        ),
        "reliability": build_reliability_table(labels, probabilities),
        "reliability_uncalibrated": build_reliability_table(
            labels, compute_probabilities(model.logits["test"])
        ),
        "scores": _build_histogram(labels, probabilities),
    }


def _build_histogram(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> pd.DataFrame:
    """Return the number of reviews of each class by predicted probability."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(probabilities[labels == label], edges)[0] for label, name in enumerate(CLASSES)
    }
    return pd.DataFrame({"probability": (edges[:-1] + edges[1:]) / 2, **counts})


def plot_models(
    models: Sequence[EvaluatedModel], labels: NDArray[np.integer], slices: pd.DataFrame
) -> dict[str, Figure]:
    """Plot curves, calibration, confusion matrices, scores and slices of all models on the test split.

    Args:
        models: evaluated models.
        labels: labels of the test reviews, 0 or 1, shape (n_test_reviews,).
        slices: AUC of the selected model by slice.

    Returns:
        Matplotlib figures, by the name of the file in which MLflow stores them.
    """
    return {
        "roc.png": _plot_curves(RocCurveDisplay, models, labels),
        "precision_recall.png": _plot_curves(PrecisionRecallDisplay, models, labels),
        "calibration.png": _plot_calibration(models, labels),
        "confusion.png": _plot_confusion(models, labels),
        "scores.png": _plot_scores(models, labels),
        "slices.png": _plot_slices(slices),
    }


def _plot_curves(
    display: type[RocCurveDisplay] | type[PrecisionRecallDisplay],
    models: Sequence[EvaluatedModel],
    labels: NDArray[np.integer],
) -> Figure:
    fig, (axes,) = _new_figure(1)
    for position, model in enumerate(models):
        is_last = position == len(models) - 1
        display.from_predictions(
            labels, model.logits["test"], name=model.name, plot_chance_level=is_last, ax=axes
        )
    return fig


def _plot_calibration(models: Sequence[EvaluatedModel], labels: NDArray[np.integer]) -> Figure:
    fig, panels = _new_figure(2)
    for axes, title in zip(panels, ("before temperature scaling", "after"), strict=True):
        for model in models:
            temperature = model.calibration.temperature if title == "after" else 1.0
            table = build_reliability_table(labels, compute_probabilities(model.logits["test"], temperature))
            axes.plot(table["mean_probability"], table["fraction_positive"], marker="o", label=model.name)
        axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
        axes.set(title=title, xlabel="mean predicted probability", ylabel="fraction of positive reviews")
        axes.legend()
    return fig


def _plot_confusion(models: Sequence[EvaluatedModel], labels: NDArray[np.integer]) -> Figure:
    fig, panels = _new_figure(len(models))
    for axes, model in zip(panels, models, strict=True):
        predicted = model.probabilities("test") >= model.calibration.threshold
        ConfusionMatrixDisplay.from_predictions(
            labels, predicted.astype(int), display_labels=CLASSES, cmap="Blues", colorbar=False, ax=axes
        )
        axes.set_title(model.name)
    return fig


def _plot_scores(models: Sequence[EvaluatedModel], labels: NDArray[np.integer]) -> Figure:
    fig, panels = _new_figure(len(models))
    for axes, model in zip(panels, models, strict=True):
        table = _build_histogram(labels, model.probabilities("test"))
        for name in CLASSES:
            axes.step(table["probability"], table[name], where="mid", label=name)
        axes.set(title=model.name, xlabel="predicted probability", ylabel="reviews", yscale="log")
        axes.legend()
    return fig


def _plot_slices(slices: pd.DataFrame) -> Figure:
    fig, (axes,) = _new_figure(1)
    measured = slices.dropna(subset=["auc"])[::-1]
    errors = np.stack([measured["auc"] - measured["low"], measured["high"] - measured["auc"]])
    axes.errorbar(measured["auc"], np.arange(len(measured)), xerr=errors, fmt="o", capsize=3)
    axes.set_yticks(
        np.arange(len(measured)), [f"{row.name} ({row.reviews:,})" for row in measured.itertuples()]
    )
    axes.set_xlabel("AUC, with confidence interval")
    return fig


def _new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(6 if panels == 1 else 4.5 * panels, 5), dpi=120, layout="constrained")
    return fig, list(fig.subplots(1, panels, squeeze=False)[0])


def _downsample(curve: pd.DataFrame) -> pd.DataFrame:
    """Return at most `CURVE_POINTS` evenly spaced rows of a curve, including the first and the last."""
    rows = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return curve.iloc[rows]
