"""Temperature, decision threshold, calibration error and reliability table."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, log_loss, precision_score

from sentiment.errors import UserError
from sentiment.evaluation.calibration import (
    assign_bins,
    build_reliability_table,
    choose_threshold,
    compute_calibration_error,
    fit_temperature,
)
from sentiment.params.evaluate import BestF1Threshold, FixedThreshold, PrecisionThreshold
from tests.evaluation.simulated import draw_probabilities

BEST_F1 = BestF1Threshold(kind="best_f1")


def _precision(value: float) -> PrecisionThreshold:
    return PrecisionThreshold(kind="precision", precision=value)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_minimises_the_log_loss(temperature: float) -> None:
    labels, logits, _ = draw_probabilities(2000, seed=0, temperature=temperature)

    def loss(candidate: float) -> float:
        return float(log_loss(labels, expit(logits / candidate)))

    fitted = fit_temperature(labels, logits)
    optimum = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert fitted == pytest.approx(optimum.x, abs=2e-5)  # how flat the loss is to a float64
    assert loss(fitted) == pytest.approx(optimum.fun, abs=1e-10)
    assert all(loss(fitted) <= loss(candidate) for candidate in np.geomspace(0.05, 20, 200))
    assert fitted == pytest.approx(temperature, rel=0.15)


def test_temperature_of_bad_or_perfect_logits_is_bounded() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    separating = np.array([-3.0, -2, -1, 1, 2, 3])
    assert fit_temperature(labels, separating) == 0.05
    assert fit_temperature(labels, -separating) == 20.0
    assert fit_temperature(labels, np.zeros(6)) == 1.0
    assert fit_temperature(np.repeat([0, 1], [2, 6]), np.full(8, 2.0)) == pytest.approx(
        2 / np.log(3), abs=1e-6
    )


def test_temperature_of_float32_logits_is_reproducible_and_needs_both_classes() -> None:
    labels, logits, _ = draw_probabilities(500, seed=1)
    single = logits.astype(np.float32)
    assert fit_temperature(labels, single) == fit_temperature(labels, single.copy())
    with pytest.raises(UserError, match="found 4 positive and 0 negative"):
        fit_temperature(np.ones(4, dtype=np.int8), np.arange(4.0))
    with pytest.raises(UserError, match="not finite"):
        fit_temperature(np.array([0, 0, 1, 1]), np.array([0, 1, np.nan, 2]))


def _f1_at(labels: NDArray[np.integer], probabilities: NDArray[np.float64], threshold: float) -> float:
    return float(f1_score(labels, probabilities >= threshold))


@pytest.mark.parametrize("decimals", [2, 16])
def test_best_f1_threshold_beats_every_other(decimals: int) -> None:
    labels, _, probabilities = draw_probabilities(300, seed=2, temperature=2.0)
    probabilities = np.round(probabilities, decimals)
    chosen = choose_threshold(labels, probabilities, BEST_F1)
    best = max(_f1_at(labels, probabilities, threshold) for threshold in probabilities)
    assert _f1_at(labels, probabilities, chosen) == pytest.approx(best, abs=1e-12)
    assert chosen == round(chosen, 6)


@pytest.mark.parametrize("decimals", [2, 16])
def test_precision_threshold_is_the_lowest_that_reaches_it(decimals: int) -> None:
    labels, _, probabilities = draw_probabilities(300, seed=3)
    probabilities = np.round(probabilities, decimals)
    for wanted in (0.6, 0.85, 0.9):
        chosen = choose_threshold(labels, probabilities, _precision(wanted))
        assert precision_score(labels, probabilities >= chosen) >= wanted
        below = probabilities[probabilities < chosen - 1e-6]
        assert all(precision_score(labels, probabilities >= threshold) < wanted for threshold in below)


def test_rounding_of_a_threshold_keeps_its_precision() -> None:
    """0.5000004 rounds down and 0.5000006 up; the reviews around them decide the precision."""
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.array([0.5000001, 0.5000004, 0.5000006, 0.9, 0.95])
    chosen = choose_threshold(labels, probabilities, _precision(0.99))
    assert chosen == round(chosen, 6)
    assert precision_score(labels, probabilities >= chosen) == 1.0


def test_rounding_of_a_threshold_keeps_its_f1() -> None:
    """Rounded up to 0.500001, the threshold would exclude the review that it belongs to."""
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.5000006, 0.9])
    assert _f1_at(labels, probabilities, choose_threshold(labels, probabilities, BEST_F1)) == 1.0


def test_threshold_of_extreme_probabilities_is_between_0_and_1() -> None:
    labels = np.array([0, 1, 0, 1])
    for probabilities in (np.zeros(4), np.ones(4), np.array([0.0, 1.0, 1e-9, 1.0])):
        assert 0 < choose_threshold(labels, probabilities, BEST_F1) < 1


def test_unreachable_precision_names_the_highest_one() -> None:
    labels, probabilities = np.array([1, 0, 1, 0, 1]), np.array([0.1, 0.3, 0.5, 0.9, 0.7])
    with pytest.raises(UserError, match=r"no threshold has a precision of 0.9 .* the highest is 0.6666"):
        choose_threshold(labels, probabilities, _precision(0.9))
    assert choose_threshold(labels, probabilities, _precision(0.6)) == 0.1


def test_fixed_threshold_needs_no_scores() -> None:
    fixed = FixedThreshold(kind="fixed", value=0.3)
    assert choose_threshold(np.empty(0, dtype=np.int8), np.empty(0), fixed) == 0.3


def test_bins_hold_equal_numbers_and_keep_equal_probabilities_together() -> None:
    _, _, probabilities = draw_probabilities(1500, seed=4)
    assert np.bincount(assign_bins(probabilities)).tolist() == [100] * 15
    tied = np.repeat([0.2, 0.7], [90, 10])
    assert sorted(np.bincount(assign_bins(tied)).tolist()) == [10, 90]
    assert assign_bins(np.full(50, 0.5)).max() == 0


def test_calibration_error_equals_a_loop_over_sorted_reviews() -> None:
    labels, _, probabilities = draw_probabilities(900, seed=5, temperature=2.0)
    expected = 0.0
    for bin_rows in np.split(np.argsort(probabilities), 15):
        gap = probabilities[bin_rows].mean() - labels[bin_rows].mean()
        expected += abs(gap) * len(bin_rows) / 900
    assert compute_calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_removed_by_the_temperature() -> None:
    labels, logits, probabilities = draw_probabilities(20_000, seed=6, temperature=2.0)
    calibrated = expit(logits / fit_temperature(labels, logits))
    assert compute_calibration_error(labels, probabilities) > 0.08
    assert compute_calibration_error(labels, calibrated) < 0.02


def test_reliability_table_is_scikit_learns_with_the_numbers_of_reviews() -> None:
    labels, _, probabilities = draw_probabilities(1000, seed=7, temperature=1.5)
    table = build_reliability_table(labels, probabilities, bins=10)
    positive, mean = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(table["fraction_positive"], positive, atol=1e-12)
    np.testing.assert_allclose(table["mean_probability"], mean, atol=1e-12)
    assert table["bin"].tolist() == list(range(1, 11))
    assert table["reviews"].sum() == 1000
    gaps = (table["mean_probability"] - table["fraction_positive"]).abs() * table["reviews"]
    assert gaps.sum() / 1000 == pytest.approx(compute_calibration_error(labels, probabilities, bins=10))
