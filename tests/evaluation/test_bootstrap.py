"""Metrics with weights, and bootstrap intervals."""

import time

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)

from sentiment.evaluation.bootstrap import WeightedMetrics, compute_bootstrap_intervals, iter_weights
from sentiment.evaluation.calibration import assign_bins, compute_calibration_error
from tests.evaluation.simulated import draw_grouped, draw_probabilities


@pytest.mark.parametrize("decimals", [1, 16])
def test_metrics_with_weights_equal_those_of_repeated_reviews(decimals: int) -> None:
    """A weight is how often a review was drawn; decimals: with and without ties."""
    labels, _, probabilities = draw_probabilities(400, seed=0, temperature=1.5)
    probabilities = np.round(probabilities, decimals)
    metrics = WeightedMetrics.prepare(labels, probabilities, threshold=0.4)
    rng = np.random.default_rng(1)
    weights = np.stack(
        [np.ones(400, dtype=int), *(rng.multinomial(400, np.full(400, 1 / 400)) for _ in range(3))]
    )
    computed = metrics.compute(weights.astype(np.float64))
    bins = assign_bins(probabilities)
    for sample, times in enumerate(weights):
        rows = np.repeat(np.arange(400), times)
        y, p = labels[rows], probabilities[rows]
        predicted = p >= 0.4
        gaps = [abs((p - y)[bins[rows] == one].sum()) / 400 for one in range(bins.max() + 1)]
        expected = {
            "average_precision": average_precision_score(y, p),
            "accuracy": accuracy_score(y, predicted),
            "precision": precision_score(y, predicted),
            "recall": recall_score(y, predicted),
            "f1": f1_score(y, predicted),
            "log_loss": log_loss(y, p),
            "brier_score": brier_score_loss(y, p),
            "expected_calibration_error": sum(gaps),
        }
        assert {name: values[sample] for name, values in computed.items()} == pytest.approx(
            expected, abs=1e-9
        )
    assert computed["expected_calibration_error"][0] == pytest.approx(
        compute_calibration_error(labels, probabilities), abs=1e-12
    )


def test_samples_without_groups_are_stratified_by_class() -> None:
    labels = np.array([1, 1, 1, 0, 0])
    weights = np.concatenate(list(iter_weights(labels, None, seed=0, resamples=2000)))
    assert weights.shape == (2000, 5)
    assert set(weights[:, labels == 1].sum(1)) == {3.0}
    assert set(weights[:, labels == 0].sum(1)) == {2.0}
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.08)  # four standard errors
    assert weights[:, 0].var() == pytest.approx(3 * (1 / 3) * (2 / 3), rel=0.15)  # binomial


def test_groups_are_drawn_as_a_whole() -> None:
    labels, _, _, groups = draw_grouped(30, seed=1)
    weights = np.concatenate(list(iter_weights(labels, groups, seed=0, resamples=50)))
    for group in np.unique(groups):
        of_group = weights[:, groups == group]
        assert (of_group == of_group[:, :1]).all()
    assert (weights @ (labels == 1) > 0).all()
    assert (weights @ (labels == 0) > 0).all()


def test_intervals_depend_on_the_seed_alone() -> None:
    labels, _, probabilities = draw_probabilities(300, seed=2)
    metrics = WeightedMetrics.prepare(labels, probabilities, threshold=0.5)
    first, again, other = (compute_bootstrap_intervals(metrics, 0.95, None, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_intervals_cover_as_often_as_they_should() -> None:
    """150 simulated splits, each of 200 reviews of each class; the truth is that of all 300,000 reviews."""
    labels, _, probabilities = draw_probabilities(300_000, seed=3, temperature=1.5)
    of_class = [np.flatnonzero(labels == label) for label in (0, 1)]
    large = WeightedMetrics.prepare(labels, probabilities, threshold=0.5)
    truth = {name: value[0] for name, value in large.compute(np.ones((1, len(labels)))).items()}
    covered = dict.fromkeys(truth, 0)
    for sample in range(150):
        rows = np.concatenate([all_rows[200 * sample : 200 * (sample + 1)] for all_rows in of_class])
        metrics = WeightedMetrics.prepare(labels[rows], probabilities[rows], threshold=0.5)
        intervals = compute_bootstrap_intervals(metrics, 0.9, None, seed=0, resamples=200)
        for name, interval in intervals.items():
            covered[name] += interval.low <= truth[name] <= interval.high
    for name, count in covered.items():
        if name == "expected_calibration_error":
            assert count / 150 >= 0.9, name  # conservative
        else:
            assert count / 150 == pytest.approx(0.9, abs=0.075), name  # three standard errors


@pytest.mark.parametrize(("temperature", "includes_zero"), [(1.0, True), (2.5, False)])
def test_calibration_error_of_a_calibrated_model_may_be_zero(temperature: float, includes_zero: bool) -> None:
    labels, _, probabilities = draw_probabilities(1500, seed=4, temperature=temperature)
    metrics = WeightedMetrics.prepare(labels, probabilities, threshold=0.5)
    interval = compute_bootstrap_intervals(metrics, 0.95, None, seed=0)["expected_calibration_error"]
    assert (interval.low == 0) == includes_zero


def test_intervals_by_group_are_those_of_a_bootstrap_over_groups() -> None:
    """If every review of a group is repeated, the interval by group is that of the single reviews."""
    labels, _, probabilities = draw_probabilities(300, seed=5)
    once = WeightedMetrics.prepare(labels, probabilities, threshold=0.5)
    fivefold = WeightedMetrics.prepare(np.repeat(labels, 5), np.repeat(probabilities, 5), threshold=0.5)
    single = compute_bootstrap_intervals(once, 0.95, None, seed=0)
    grouped = compute_bootstrap_intervals(fivefold, 0.95, np.repeat(np.arange(300), 5), seed=0)
    ungrouped = compute_bootstrap_intervals(fivefold, 0.95, None, seed=0)
    for name in ("log_loss", "brier_score", "accuracy", "average_precision"):
        width = single[name].high - single[name].low
        assert grouped[name].high - grouped[name].low == pytest.approx(width, rel=0.12), name  # other samples
        assert ungrouped[name].high - ungrouped[name].low < 0.6 * width, name


def test_thousand_samples_of_five_thousand_reviews_take_seconds() -> None:
    labels, _, probabilities = draw_probabilities(5000, seed=6)
    metrics = WeightedMetrics.prepare(labels, probabilities, threshold=0.5)
    start = time.process_time()
    compute_bootstrap_intervals(metrics, 0.95, None, seed=0)
    assert time.process_time() - start < 10
