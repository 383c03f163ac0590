import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.intervals import (
    compute_delong_gain,
    compute_delong_interval,
    compute_wilson_interval,
    estimate_auc,
    estimate_auc_difference,
    estimate_part_difference,
)
from tests.evaluation.simulated import draw_grouped, draw_scores


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


def _count_wins(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the kernel of every pair of a positive and a negative review, shape (positive, negative)."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    return np.asarray((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative))


def _compute_clustered_variance(labels: np.ndarray, wins: np.ndarray, groups: np.ndarray) -> float:
    """Obuchowski 1997, formulas for S10, S01 and S11, group by group."""
    m, n = wins.shape
    area = wins.mean()
    names = sorted(set(groups.tolist()))
    of_positive, of_negative = groups[labels == 1], groups[labels == 0]
    positive_clusters, negative_clusters = len(set(of_positive.tolist())), len(set(of_negative.tolist()))
    s10 = s01 = s11 = 0.0
    for name in names:
        positive_sum = sum(wins[i].mean() - area for i in np.flatnonzero(of_positive == name))
        negative_sum = sum(wins[:, j].mean() - area for j in np.flatnonzero(of_negative == name))
        s10 += positive_sum**2
        s01 += negative_sum**2
        s11 += positive_sum * negative_sum
    s10 *= positive_clusters / ((positive_clusters - 1) * m)
    s01 *= negative_clusters / ((negative_clusters - 1) * n)
    s11 *= len(names) / (len(names) - 1)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("ties", [False, True])
def test_clustered_standard_errors_equal_obuchowskis_formulas(ties: bool) -> None:
    labels, first, second, groups = draw_grouped(40, seed=3)
    if ties:
        first, second = np.round(first), np.round(second)
    wins = [_count_wins(labels, scores) for scores in (first, second)]
    alone = estimate_auc(labels, first, groups)
    assert alone.value == pytest.approx(wins[0].mean(), abs=1e-12)
    assert alone.standard_error**2 == pytest.approx(
        _compute_clustered_variance(labels, wins[0], groups), abs=1e-12
    )
    paired = estimate_auc_difference(labels, first, second, groups)
    assert paired.value == pytest.approx(wins[0].mean() - wins[1].mean(), abs=1e-12)
    assert paired.standard_error**2 == pytest.approx(
        _compute_clustered_variance(labels, wins[0] - wins[1], groups), abs=1e-12
    )


def test_standard_errors_with_single_reviews_as_groups_are_delongs() -> None:
    labels, first, second = draw_scores(300, seed=4)
    groups = np.random.default_rng(0).permutation(300) * 7
    plain, grouped = (estimate_auc(labels, first, g) for g in (None, groups))
    assert grouped.standard_error == pytest.approx(plain.standard_error, abs=1e-15)
    plain, grouped = (estimate_auc_difference(labels, first, second, g) for g in (None, groups))
    assert grouped.standard_error == pytest.approx(plain.standard_error, abs=1e-15)


def test_clustered_standard_error_is_that_of_a_bootstrap_over_groups() -> None:
    labels, first, second, groups = draw_grouped(150, seed=5)
    rng = np.random.default_rng(6)
    rows_of_group = [np.flatnonzero(groups == group) for group in range(150)]
    drawn = []
    for _ in range(400):
        rows = np.concatenate([rows_of_group[group] for group in rng.integers(0, 150, 150)])
        drawn.append([roc_auc_score(labels[rows], scores[rows]) for scores in (first, second)])
    aucs = np.array(drawn)
    alone = estimate_auc(labels, first, groups).standard_error
    assert alone == pytest.approx(aucs[:, 0].std(), rel=0.15)  # 400 samples: 4 standard errors are 14%
    paired = estimate_auc_difference(labels, first, second, groups).standard_error
    assert paired == pytest.approx((aucs[:, 0] - aucs[:, 1]).std(), rel=0.15)
    assert estimate_auc(labels, first).standard_error < 0.8 * alone  # plain DeLong is too sure


def test_groups_change_the_interval_but_not_the_auc() -> None:
    labels, first, second, groups = draw_grouped(60, seed=7)
    plain, grouped = (
        compute_delong_gain(labels, first, second),
        compute_delong_gain(labels, first, second, groups=groups),
    )
    assert plain[0] == grouped[0]
    assert plain[1] != grouped[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.array([0.1, np.nan, 0.3, np.inf])}, "2 of 4 scores are not finite"),
        ({"scores": np.arange(3.0)}, r"\(4,\).*\(3,\) do not match"),
        ({"labels": np.array([0, 1, -1, 1])}, "1 of 4 labels are neither 0 nor 1"),
        ({"labels": np.zeros(4, dtype=np.int8)}, "found 0 positive and 4 negative"),
        ({"groups": np.array([0, 1, 2])}, r"groups of shape \(3,\)"),
        ({"groups": np.array([0, 1, 0, 2])}, "each class in two groups, found 1"),
    ],
)
def test_invalid_scores_are_named(change: dict[str, np.ndarray], message: str) -> None:
    arguments = {"labels": np.array([0, 1, 0, 1]), "scores": np.arange(4.0), **change}
    with pytest.raises(UserError, match=message):
        estimate_auc(**arguments)


def test_equal_scores_have_an_auc_of_one_half_for_certain() -> None:
    estimate = estimate_auc(np.array([0, 1, 0, 1, 1]), np.ones(5))
    assert (estimate.value, estimate.standard_error) == (0.5, 0.0)


def test_difference_of_a_part_equals_its_definition() -> None:
    """Influence of each review on the AUC of the part and on that of all reviews, pair by pair."""
    labels, scores = _scored(150, seed=4, ties=True)
    members = np.random.default_rng(5).random(150) < 0.4
    aucs, variance = np.empty(2), 0.0
    influences = {1: np.zeros((2, 150)), 0: np.zeros((2, 150))}
    for row, inside in enumerate((members, np.ones(150, dtype=bool))):
        positive, negative = np.flatnonzero(inside & (labels == 1)), np.flatnonzero(inside & (labels == 0))
        wins = (scores[positive][:, None] > scores[negative]) + 0.5 * (
            scores[positive][:, None] == scores[negative]
        )
        aucs[row] = wins.mean()
        influences[1][row, positive] = (wins.mean(1) - wins.mean()) / len(positive)
        influences[0][row, negative] = (wins.mean(0) - wins.mean()) / len(negative)
    for label in (0, 1):
        size = np.sum(labels == label)
        variance += np.sum((influences[label][0] - influences[label][1]) ** 2) * size / (size - 1)
    estimate = estimate_part_difference(labels, scores, members)
    assert estimate.value == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    assert estimate.standard_error == pytest.approx(np.sqrt(variance), abs=1e-12)
