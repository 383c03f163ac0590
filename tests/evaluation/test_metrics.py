"""Metrics of a model, the selection between two models, and the gain of one over the other on test."""

import numpy as np
import pytest

from sentiment.errors import UserError
from sentiment.evaluation.metrics import compute_classification_metrics

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1])
PROBABILITIES = np.array([0.9, 0.8, 0.4, 0.6, 0.5, 0.2, 0.1, 0.7])


def test_metrics_equal_a_calculation_by_hand() -> None:
    """At 0.5: three true positives, one missed; two false alarms, one of them on the threshold itself."""
    metrics = compute_classification_metrics(LABELS, PROBABILITIES, threshold=0.5, confidence_level=0.95)
    assert metrics["confusion"] == {
        "true_negative": 2,
        "false_positive": 2,
        "false_negative": 1,
        "true_positive": 3,
    }
    assert metrics["accuracy"] == 5 / 8
    assert metrics["precision"] == 3 / 5
    assert metrics["recall"] == 3 / 4
    assert metrics["f1"] == pytest.approx(2 / 3, abs=1e-6)
    assert metrics["auc"] == 14 / 16  # 0.4 is below two of the four negatives
    # Positives are at ranks 1, 2, 3 and 6.
    assert metrics["average_precision"] == pytest.approx((1 + 1 + 1 + 4 / 6) / 4, abs=1e-6)
    assert metrics["brier_score"] == pytest.approx(
        (0.01 + 0.04 + 0.36 + 0.36 + 0.25 + 0.04 + 0.01 + 0.09) / 8
    )
    right = np.array([0.9, 0.8, 0.4, 0.4, 0.5, 0.8, 0.9, 0.7])
    assert metrics["log_loss"] == pytest.approx(-np.log(right).mean(), abs=1e-6)
    assert metrics["expected_calibration_error"] == pytest.approx((1 - right).mean())  # a bin per review


def test_interval_contains_its_metric() -> None:
    metrics = compute_classification_metrics(LABELS, PROBABILITIES, threshold=0.5, confidence_level=0.9)
    assert set(metrics["interval"]) == set(metrics) - {"interval", "confusion"}
    for name, interval in metrics["interval"].items():
        assert interval["low"] <= metrics[name] <= interval["high"], name


def test_metrics_without_a_positive_prediction() -> None:
    metrics = compute_classification_metrics(LABELS, PROBABILITIES, threshold=0.95, confidence_level=0.95)
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 0
    assert metrics["interval"]["precision"] == {"low": 0.0, "high": 1.0}


def test_certain_wrong_prediction_has_a_finite_log_loss() -> None:
    probabilities = np.where(LABELS == 1, 0.0, 1.0)
    metrics = compute_classification_metrics(LABELS, probabilities, threshold=0.5, confidence_level=0.95)
    assert metrics["log_loss"] == pytest.approx(-np.log(np.finfo(np.float64).eps), abs=1e-6)


def test_intervals_with_single_reviews_as_groups_differ_in_the_proportions_alone() -> None:
    """The proportions then have a bootstrap in place of Wilson's interval."""
    plain, grouped = (
        compute_classification_metrics(
            LABELS, PROBABILITIES, threshold=0.5, confidence_level=0.95, groups=groups
        )
        for groups in (None, np.arange(8))
    )
    differing = {name for name, bounds in plain["interval"].items() if grouped["interval"][name] != bounds}
    assert differing == {"accuracy", "precision", "recall"}
    assert {**plain, "interval": None} == {**grouped, "interval": None}


def test_equal_probabilities_have_metrics() -> None:
    metrics = compute_classification_metrics(
        LABELS, np.full(8, 0.7), threshold=0.5, confidence_level=0.95, groups=np.arange(8) // 2
    )
    assert (metrics["auc"], metrics["average_precision"], metrics["precision"]) == (0.5, 0.5, 0.5)
    assert metrics["interval"]["auc"] == {"low": 0.5, "high": 0.5}
    assert metrics["expected_calibration_error"] == 0.2


def test_probabilities_that_are_none_are_an_error() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        compute_classification_metrics(LABELS, PROBABILITIES * 2, threshold=0.5, confidence_level=0.95)
