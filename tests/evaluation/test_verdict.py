"""The verdict on two models."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.evaluation.verdict import Comparison, Verdict, compare_scores, count_rows_needed, decide
from sentiment.intervals import Interval
from tests.evaluation.simulated import draw_grouped, draw_scores

SETTINGS: dict[str, Any] = {"confidence_level": 0.95, "margin": 0.002}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.004, "better"),
        (0.0, 0.004, "no worse"),  # the bound itself is not above 0
        (-0.0019, 0.01, "no worse"),
        (-0.0015, -0.0005, "no worse"),  # lower for certain, but within the margin
        (-0.002, 0.001, "cannot tell"),
        (-0.01, 0.0, "cannot tell"),
        (-0.01, -0.0001, "worse"),
        (-0.03, -0.02, "worse"),
    ],
)
def test_verdict_follows_from_the_interval(low: float, high: float, verdict: Verdict) -> None:
    assert decide(Interval(low, high), margin=0.002) == verdict


def test_difference_and_interval_are_those_of_two_aucs() -> None:
    labels, first, second = draw_scores(400, seed=0)
    comparison = compare_scores(labels, first, second, **SETTINGS)
    expected = roc_auc_score(labels, first) - roc_auc_score(labels, second)
    assert comparison.difference == pytest.approx(expected, abs=1e-12)
    assert comparison.interval.low < expected < comparison.interval.high
    assert comparison.rows == 400


def test_swapping_the_models_negates_the_comparison() -> None:
    labels, first, second = draw_scores(400, seed=0)
    there, back = (compare_scores(labels, *both, **SETTINGS) for both in ((first, second), (second, first)))
    assert back.difference == pytest.approx(-there.difference, abs=1e-15)
    assert back.interval.low == pytest.approx(-there.interval.high, abs=1e-15)


def test_better_model_is_better_and_the_other_worse() -> None:
    labels, first, second = draw_scores(5000, seed=1, gain=1.0)
    assert compare_scores(labels, first, second, **SETTINGS).verdict == "better"
    assert compare_scores(labels, second, first, **SETTINGS).verdict == "worse"


def test_equal_scores_are_no_worse_even_on_few_reviews() -> None:
    labels, scores, _ = draw_scores(20, seed=2)
    comparison = compare_scores(labels, scores, scores.copy(), **SETTINGS)
    assert comparison.rows_needed is None
    assert str(comparison) == "no worse: equal scores on all 20 reviews"


@pytest.mark.parametrize(("positive", "verdict", "more"), [(24, "cannot tell", 3), (25, "better", None)])
def test_fewer_than_25_reviews_of_a_class_do_not_decide(
    positive: int, verdict: Verdict, more: int | None
) -> None:
    """24 of 64 reviews are positive: three more reviews have the 25th, at the same proportion."""
    labels = np.repeat(np.array([0, 1], dtype=np.int8), [40, positive])
    scores = labels + 0.001 * np.arange(40 + positive)
    comparison = compare_scores(labels, scores, np.zeros(40 + positive), **SETTINGS)
    assert (comparison.verdict, comparison.rows_needed) == (verdict, more)


def test_few_groups_do_not_decide() -> None:
    labels, scores, _ = draw_scores(400, seed=6, gain=3.0)
    few, many = np.arange(400) % 24, np.arange(400) % 100
    undecided, decided = (compare_scores(labels, scores, -scores, groups=g, **SETTINGS) for g in (few, many))
    assert (undecided.verdict, decided.verdict) == ("cannot tell", "better")


def test_model_is_no_worse_than_itself_on_any_scale() -> None:
    labels, first, _ = draw_scores(100, seed=2)
    comparison = compare_scores(labels, first * 3 - 1, first, **SETTINGS)
    assert (comparison.verdict, comparison.difference) == ("no worse", 0.0)
    assert comparison.interval == Interval(0.0, 0.0)


def test_equal_scores_of_all_reviews_are_compared() -> None:
    labels, first, _ = draw_scores(500, seed=2)
    assert compare_scores(labels, np.ones(500), first, **SETTINGS).verdict == "worse"
    assert compare_scores(labels, np.ones(500), np.zeros(500), **SETTINGS).verdict == "no worse"


def test_groups_widen_the_interval() -> None:
    labels, first, second, groups = draw_grouped(200, seed=3)
    plain, grouped = (compare_scores(labels, first, second, groups=g, **SETTINGS) for g in (None, groups))
    assert plain.difference == grouped.difference
    assert (grouped.interval.high - grouped.interval.low) > 1.1 * (plain.interval.high - plain.interval.low)


def test_false_better_of_equal_models_is_as_rare_as_the_level() -> None:
    drawn = [
        compare_scores(*draw_scores(300, seed), confidence_level=0.8, margin=0.002) for seed in range(600)
    ]
    share = np.mean([comparison.is_better for comparison in drawn])
    assert share == pytest.approx(0.1, abs=0.037)  # three standard errors


@pytest.mark.parametrize("difference", [0.0006, 0.0, -0.0008, -0.0015, -0.004])
def test_rows_needed_are_the_fewest_that_decide(difference: float) -> None:
    """By the verdicts on intervals that shrink as 1 / sqrt(rows)."""
    needed = count_rows_needed(difference, half_width=0.01, margin=0.002, rows=300)

    def verdict_with(more: int) -> Verdict:
        half = 0.01 * (300 / (300 + more)) ** 0.5
        return decide(Interval(difference - half, difference + half), 0.002)

    assert needed > 0
    assert verdict_with(needed) != "cannot tell"
    assert verdict_with(needed - 1) == "cannot tell"


def test_only_cannot_tell_has_rows_needed() -> None:
    labels, first, second = draw_scores(200, seed=5)
    undecided = compare_scores(labels, first, second, **SETTINGS)
    assert undecided.verdict == "cannot tell"
    assert undecided.rows_needed is not None
    decided = compare_scores(labels, first, second, confidence_level=0.95, margin=0.5)
    assert (decided.verdict, decided.rows_needed) == ("no worse", None)


def test_higher_confidence_level_needs_more_rows() -> None:
    labels, first, second = draw_scores(200, seed=5)
    low, high = (
        compare_scores(labels, first, second, confidence_level=level, margin=0.002) for level in (0.9, 0.99)
    )
    widths = [comparison.interval.high - comparison.interval.low for comparison in (low, high)]
    assert widths[1] / widths[0] == pytest.approx(norm.ppf(0.995) / norm.ppf(0.95))
    assert low.rows_needed is not None
    assert high.rows_needed is not None
    assert high.rows_needed > low.rows_needed


def test_comparison_is_shown_in_one_line_and_written_rounded() -> None:
    comparison = Comparison("better", 0.00312345678, Interval(0.0012, 0.005), 2500, None)
    assert str(comparison) == "better: AUC +0.0031 (+0.0012 to +0.0050) on 2,500 reviews"
    undecided = Comparison("cannot tell", 0.0005, Interval(-0.0026, 0.0036), 995, 1200)
    assert str(undecided).endswith("on 995 reviews; about 1,200 more would decide")
    assert comparison.to_dict() == {
        "verdict": "better",
        "difference": 0.003123,
        "interval": {"low": 0.0012, "high": 0.005},
        "rows": 2500,
        "rows_needed": None,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence_level": 1.0}, "confidence level must be between 0 and 1, not 1.0"),
        ({"margin": 0.0}, "margin must be between 0 and 1, not 0.0"),
        ({"labels": np.ones(4, dtype=np.int8)}, "found 4 positive and 0 negative"),
        ({"labels": np.array([0, 1, 1]), "scores": np.arange(3.0)}, "found 2 positive and 1 negative"),
        ({"reference": np.array([0.0, np.nan, 1.0, 2.0])}, "1 of 4 scores are not finite"),
        ({"reference": np.arange(5.0)}, "do not match"),
    ],
)
def test_invalid_input_is_a_clear_error(change: dict[str, Any], message: str) -> None:
    arguments = {"labels": np.array([0, 1, 0, 1]), "scores": np.arange(4.0), "reference": np.arange(4.0)}
    with pytest.raises(UserError, match=message):
        compare_scores(**{**arguments, **SETTINGS, **change})
