import numpy as np
import pytest

from sentiment.evaluation.metrics import classification_metrics
from sentiment.evaluation.verdict import select

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1])
PROBABILITIES = np.array([0.9, 0.8, 0.4, 0.6, 0.5, 0.2, 0.1, 0.7])


def test_figures_by_hand() -> None:
    """At 0.5: three true positives, one missed; two false alarms, one of them on the threshold itself."""
    figures = classification_metrics(LABELS, PROBABILITIES, threshold=0.5, confidence_level=0.95)
    assert figures["confusion"] == {
        "true_negative": 2,
        "false_positive": 2,
        "false_negative": 1,
        "true_positive": 3,
    }
    assert figures["accuracy"] == 5 / 8
    assert figures["precision"] == 3 / 5
    assert figures["recall"] == 3 / 4
    assert figures["f1"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["auc"] == 14 / 16  # 0.4 is below two of the four negatives


def test_interval_holds_its_figure() -> None:
    figures = classification_metrics(LABELS, PROBABILITIES, threshold=0.5, confidence_level=0.9)
    for name, interval in figures["interval"].items():
        assert interval["low"] <= figures[name] <= interval["high"], name


def test_nothing_called_positive() -> None:
    figures = classification_metrics(LABELS, PROBABILITIES, threshold=0.95, confidence_level=0.95)
    assert figures["precision"] == figures["recall"] == figures["f1"] == 0
    assert figures["interval"]["precision"] == {"low": 0.0, "high": 1.0}


def test_higher_validation_auc_is_selected_and_a_tie_keeps_the_baseline() -> None:
    assert select({"baseline": 0.94, "tuned": 0.95}) == "tuned"
    assert select({"baseline": 0.95, "tuned": 0.94}) == "baseline"
    assert select({"baseline": 0.95, "tuned": 0.95}) == "baseline"
