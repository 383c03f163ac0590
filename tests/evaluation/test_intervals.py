import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentiment.evaluation.intervals import delong_interval, wilson_interval


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
    interval = delong_interval(labels, scores)
    margin = 1.959963984540054 * np.sqrt(variance)
    assert interval.low == pytest.approx(wins.mean() - margin, abs=1e-12)
    assert interval.high == pytest.approx(wins.mean() + margin, abs=1e-12)


def test_delong_covers_as_often_as_it_says() -> None:
    truth = roc_auc_score(*_scored(200_000, seed=1))
    intervals = [delong_interval(*_scored(300, seed)) for seed in range(2, 402)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98  # 0.95, give or take three standard errors of 400 draws


def test_delong_needs_two_of_each_class() -> None:
    with pytest.raises(ValueError, match="found 1 positive and 3 negative"):
        delong_interval(np.array([0, 0, 0, 1]), np.arange(4.0))


def test_wilson_by_hand() -> None:
    """Eight of ten at 95%: centre (0.8 + z²/20) / (1 + z²/10), z = 1.96."""
    interval = wilson_interval(8, 10)
    assert interval.low == pytest.approx(0.4901625, abs=1e-6)
    assert interval.high == pytest.approx(0.9433178, abs=1e-6)


def test_wilson_without_trials_knows_nothing() -> None:
    interval = wilson_interval(0, 0)
    assert (interval.low, interval.high) == (0.0, 1.0)
