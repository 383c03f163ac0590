"""A training run as tables and metrics for DVC: nothing in them depends on the clock."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from sentiment.training.figures import Epoch
from sentiment.training.loop import Fitted

OF_THE_MACHINE = "tokens_per_second"
"""Differs from run to run where the result does not: it goes to MLflow alone."""

DECIMALS = 6


def training_metrics(fitted: Fitted) -> dict[str, Any]:
    """Return how many epochs there were, and the figures of the one whose weights were kept."""
    return {"epochs": len(fitted.epochs), "best": _reproducible(fitted.best)}


def history_table(fitted: Fitted) -> pd.DataFrame:
    """Return one row per epoch; what there is per layer stands in `health_table`."""
    return pd.DataFrame([_reproducible(epoch) for epoch in fitted.epochs])


def health_table(fitted: Fitted) -> pd.DataFrame:
    """Return one row per epoch and layer: how its gradients and its updates were."""
    return pd.DataFrame(
        [
            {"epoch": epoch.number, "layer": name, **asdict(layer)}
            for epoch in fitted.epochs
            for name, layer in epoch.health.layers.items()
        ]
    )


def _reproducible(epoch: Epoch) -> dict[str, Any]:
    figures = asdict(epoch)
    figures.pop(OF_THE_MACHINE)
    figures.pop("health")
    return {
        "epoch": figures.pop("number"),
        **{name: round(value, DECIMALS) for name, value in figures.items()},
    }
