"""The simulations of `make bench-verdict`: the models that they draw, and that their bars can be missed."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, rankdata

from bench.verdict.flipped_labels import flip_labels
from bench.verdict.null import DESIGNS, build_groups, false_better_bar, simulate_false_better
from bench.verdict.power import Binormal, compute_bivariate_normal, compute_power, simulate_power
from bench.verdict.scores import Scores
from sentiment.intervals import estimate_auc, estimate_auc_difference
from sentiment.tokens.token_store import TokenizedReviews
from tests.evaluation.simulated import draw_scores


def _scores(reviews: int) -> Scores:
    labels, first, second = draw_scores(reviews, seed=0)
    return Scores(labels, rankdata(first), rankdata(second))


@pytest.mark.parametrize(("h", "k", "correlation"), [(1.2, 1.2, 0.5), (0.3, 2.0, 0.9), (1.5, 1.4, -0.3)])
def test_bivariate_normal_probability_is_scipys(h: float, k: float, correlation: float) -> None:
    expected = multivariate_normal.cdf([h, k], cov=[[1, correlation], [correlation, 1]])
    assert compute_bivariate_normal(h, k, correlation) == pytest.approx(expected, abs=1e-6)


def test_binormal_scores_match_the_real_ones() -> None:
    scores = _scores(2000)
    binormal = Binormal.match(scores)
    assert binormal.auc == estimate_auc(scores.labels, scores.first).value
    assert binormal.compute_deviation(0.0) == pytest.approx(scores.compute_deviation(), rel=1e-6)
    labels, first, second = binormal.draw(100_000, 0.01, np.random.default_rng(0))
    drawn = estimate_auc_difference(labels, first, second)
    assert drawn.value == pytest.approx(0.01, abs=4 * drawn.standard_error)
    assert drawn.standard_error * 100_000**0.5 == pytest.approx(binormal.compute_deviation(0.01), rel=0.02)


def test_power_of_simulation_and_approximation_agree() -> None:
    binormal = Binormal(auc=0.95, correlation=0.97)
    expected = compute_power(binormal, 0.005, 1000, confidence_level=0.95)
    found = simulate_power(binormal, 0.005, 1000, confidence_level=0.95, margin=0.002, draws=500)
    assert 0.2 < expected < 0.9
    assert found == pytest.approx(expected, abs=0.07)  # three standard errors


def test_selection_on_the_compared_reviews_is_detected_as_false_better() -> None:
    """The design that reuses reviews finds far more false gains than the one that does not."""
    scores = _scores(600)
    sound, reused = (simulate_false_better(scores, DESIGNS[i], 0.95, 0.002, resamplings=150) for i in (0, 3))
    assert sound < 0.08
    assert reused > 0.1


def test_groups_hold_reviews_of_one_label_and_are_drawn_once() -> None:
    scores = _scores(2000)
    groups = build_groups(scores, np.random.default_rng(0))
    sizes = np.bincount(groups)
    assert sizes[sizes > 0].mean() == pytest.approx(8, rel=0.25)
    mixed = [g for g in np.unique(groups) if 0 < scores.labels[groups == g].mean() < 1]
    assert len(mixed) <= 1  # the one at the boundary between the labels


def test_bar_on_false_better_can_be_missed() -> None:
    """The limit is 2.5% plus two Monte Carlo standard errors of 2,000 resamplings: 3.2%."""
    assert [false_better_bar(DESIGNS[0], found, 0.95).holds for found in (0.025, 0.0319, 0.0321)] == [
        True,
        True,
        False,
    ]
    assert [false_better_bar(design, 0.2, 0.95).holds for design in DESIGNS] == [False, False, None, None]


def test_a_tenth_of_the_labels_is_flipped() -> None:
    reviews = TokenizedReviews.from_lists([[1, 2]] * 200, [0, 1] * 100)
    flipped = flip_labels(reviews, 0.1, np.random.default_rng(0))
    assert np.count_nonzero(flipped.labels != reviews.labels) == 20
    assert (flipped.ids == reviews.ids).all()
