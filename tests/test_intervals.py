import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.intervals import compute_delong_gain, compute_delong_interval, compute_wilson_interval


def _scored(reviews: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, reviews)
    scores = rng.normal(labels * 1.2)
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_its_definition(ties: bool) -> None:
    """Placements counted pair by pair, as the 1988 paper writes them."""
    labels, scores = _scored(120, seed=0, ties=ties)
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    interval = compute_delong_interval(labels, scores)
    margin = 1.959963984540054 * np.sqrt(variance)
    assert interval.low == pytest.approx(wins.mean() - margin, abs=1e-12)
    assert interval.high == pytest.approx(wins.mean() + margin, abs=1e-12)


def test_delong_covers_as_often_as_it_says() -> None:
    truth = roc_auc_score(*_scored(200_000, seed=1))
    intervals = [compute_delong_interval(*_scored(300, seed)) for seed in range(2, 402)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98  # 0.95, give or take three standard errors of 400 draws


def test_delong_needs_two_of_each_class() -> None:
    with pytest.raises(UserError, match="found 1 positive and 3 negative"):
        compute_delong_interval(np.array([0, 0, 0, 1]), np.arange(4.0))


def _scored_twice(reviews: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models that err on much the same reviews, the first a little less."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, reviews)
    shared = rng.normal(labels * 1.2)
    return labels, shared + rng.normal(size=reviews) * 0.3, shared + rng.normal(size=reviews) * 0.6


def test_gain_equals_its_definition() -> None:
    """The covariance matrix of two areas, pair by pair, as the 1988 paper writes it."""
    labels, better, worse = _scored_twice(150, seed=0)
    at_positives, at_negatives = [], []
    for scores in (better, worse):
        positive, negative = scores[labels == 1], scores[labels == 0]
        wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        at_positives.append(wins.mean(1))
        at_negatives.append(wins.mean(0))
    covariance = np.cov(at_positives) / len(at_positives[0]) + np.cov(at_negatives) / len(at_negatives[0])
    margin = 1.959963984540054 * np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    gain, interval = compute_delong_gain(labels, better, worse)
    assert gain == pytest.approx(roc_auc_score(labels, better) - roc_auc_score(labels, worse), abs=1e-12)
    assert interval.low == pytest.approx(gain - margin, abs=1e-12)
    assert interval.high == pytest.approx(gain + margin, abs=1e-12)


def test_gain_covers_as_often_as_it_says_and_is_narrower_than_unpaired() -> None:
    labels, better, worse = _scored_twice(200_000, seed=1)
    truth = roc_auc_score(labels, better) - roc_auc_score(labels, worse)
    drawn = [_scored_twice(300, seed) for seed in range(2, 402)]
    intervals = [compute_delong_gain(*scored)[1] for scored in drawn]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98  # 0.95, give or take three standard errors of 400 draws
    alone = compute_delong_interval(*drawn[0][:2])
    assert intervals[0].high - intervals[0].low < (alone.high - alone.low)


def test_model_gains_nothing_over_itself() -> None:
    labels, scores = _scored(50, seed=0)
    gain, interval = compute_delong_gain(labels, scores, scores * 3 - 1)
    assert (gain, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_wilson_by_hand() -> None:
    """Eight of ten at 95%: centre (0.8 + z²/20) / (1 + z²/10), z = 1.96."""
    interval = compute_wilson_interval(8, 10)
    assert interval.low == pytest.approx(0.4901625, abs=1e-6)
    assert interval.high == pytest.approx(0.9433178, abs=1e-6)


def test_wilson_without_trials_knows_nothing() -> None:
    interval = compute_wilson_interval(0, 0)
    assert (interval.low, interval.high) == (0.0, 1.0)
