"""The simulation of `make bench-retrain`: it is the gate's method, and its bars can be missed."""

import numpy as np
import pytest

from bench.retrain.year import (
    AUC,
    Scenario,
    SimulatedSplit,
    compute_placements,
    estimate_difference,
    loss_bars,
    simulate_year,
    superiority_bar,
)
from sentiment.intervals import estimate_auc_difference

MARGIN = 0.002


def test_simulated_comparison_is_delongs() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [300, 200])
    first, second = rng.normal(size=(2, 500)) + labels
    differences = compute_placements(first, 300) - compute_placements(second, 300)
    expected = estimate_auc_difference(labels, first, second)
    found = estimate_difference(differences, 300)
    assert (found.value, found.standard_error) == pytest.approx((expected.value, expected.standard_error))


def test_simulated_models_have_their_auc_and_the_standard_error_of_real_ones() -> None:
    split = SimulatedSplit(100_000, np.random.default_rng(0))
    difference = split.train(AUC).placements - split.train(AUC - 0.01).placements
    estimate = estimate_difference(difference, split.positive)
    assert estimate.value == pytest.approx(0.01, abs=4 * estimate.standard_error)
    equal = split.train(AUC).placements - split.train(AUC).placements
    assert estimate_difference(equal, split.positive).standard_error * 100_000**0.5 == pytest.approx(
        0.0387, rel=0.02
    )


def test_anchor_limits_the_losses_that_add_up_without_it() -> None:
    lost = {}
    for has_anchor in (True, False):
        scenario = Scenario("", data_changed=True, loss=0.0005, has_anchor=has_anchor)
        rng = np.random.default_rng(1)
        lost[has_anchor] = np.mean([simulate_year(scenario, MARGIN, rng, rows=2000).lost for _ in range(8)])
    assert 0 < lost[True] < 0.0043  # the margin with 2,000 reviews
    assert lost[False] > 1.3 * lost[True]


def test_bars_can_be_missed() -> None:
    gaining = Scenario("some better", data_changed=False, deviation=0.005)
    assert superiority_bar(gaining, MARGIN, years=2).holds is False
    (bar, _) = loss_bars(Scenario("", data_changed=True, loss=0.0005), MARGIN, years=2)
    assert bar.holds is True
