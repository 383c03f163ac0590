"""Metrics of a model, the selection between two models, and the gain of one over the other on test."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.evaluation.metrics import (
    Evaluation,
    compute_classification_metrics,
    compute_test_gain,
    select_model,
)
from sentiment.params import EvaluateParams
from sentiment.params.evaluate import EvaluationLimits, FixedThreshold

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


def test_probabilities_that_are_none_are_an_error() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        compute_classification_metrics(LABELS, PROBABILITIES * 2, threshold=0.5, confidence_level=0.95)


def test_higher_validation_auc_is_selected_and_a_tie_selects_the_baseline() -> None:
    assert select_model({"baseline": 0.94, "tuned": 0.95}) == "tuned"
    assert select_model({"baseline": 0.95, "tuned": 0.94}) == "baseline"
    assert select_model({"baseline": 0.95, "tuned": 0.95}) == "baseline"


MANY_LABELS = np.random.default_rng(0).integers(0, 2, 200)


def _evaluation(noise: float, seed: int) -> Evaluation:
    errors = np.random.default_rng(seed).normal(size=len(MANY_LABELS))
    return Evaluation({}, {}, 1 / (1 + np.exp(-(MANY_LABELS + noise * errors))))


BETTER, WORSE = _evaluation(0.5, seed=1), _evaluation(1.0, seed=2)


def _params(confidence_level: float) -> EvaluateParams:
    return EvaluateParams(
        confidence_level=confidence_level,
        margin=0.002,
        threshold=FixedThreshold(kind="fixed", value=0.5),
        limits=EvaluationLimits(behaviour={}),
    )


def test_gain_is_the_difference_of_the_two_aucs() -> None:
    gain, loss = (
        compute_test_gain(*both, MANY_LABELS, _params(0.95)) for both in ((BETTER, WORSE), (WORSE, BETTER))
    )
    aucs = [roc_auc_score(MANY_LABELS, model.test_probabilities) for model in (BETTER, WORSE)]
    assert gain.auc == pytest.approx(aucs[0] - aucs[1])
    assert loss.auc == pytest.approx(-gain.auc)
    assert gain.auc > 0


def test_interval_is_that_of_a_paired_bootstrap_at_the_confidence_level() -> None:
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(500):
        rows = rng.integers(0, len(MANY_LABELS), len(MANY_LABELS))
        aucs = [roc_auc_score(MANY_LABELS[rows], model.test_probabilities[rows]) for model in (BETTER, WORSE)]
        drawn.append(aucs[0] - aucs[1])
    for confidence_level in (0.8, 0.95):
        interval = compute_test_gain(BETTER, WORSE, MANY_LABELS, _params(confidence_level)).interval
        assert interval is not None
        low, high = np.quantile(drawn, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
        assert interval.low == pytest.approx(low, abs=0.1 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.1 * (high - low))


def test_gain_of_a_model_over_itself_is_zero() -> None:
    gain = compute_test_gain(BETTER, BETTER, MANY_LABELS, _params(0.95))
    assert gain.to_dict() == {"auc": 0.0, "interval": {"low": 0.0, "high": 0.0}}
