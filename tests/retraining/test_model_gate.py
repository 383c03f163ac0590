"""Decisions of the model gate, from scores and from the registry's tags."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count

import pytest

from sentiment.evaluation.verdict import Comparison, Verdict
from sentiment.intervals import Interval, estimate_auc_difference
from sentiment.registry.git_tags import RegistryTag
from sentiment.registry.state import Registry
from sentiment.retraining.gate_result import GateComparison, Role
from sentiment.retraining.model_gate import LEVEL, compare_at_level, decide, find_anchor
from sentiment.retraining.slice_differences import SliceDifference, find_worse_slices
from tests.evaluation.simulated import draw_scores


def _comparisons(champion: Verdict, anchor: Verdict | None = None) -> dict[Role, GateComparison]:
    verdicts: Mapping[Role, Verdict | None] = {"champion": champion, "anchor": anchor}
    return {
        role: GateComparison(role, Comparison(verdict, 0.0, Interval(-0.1, 0.1), 100, None), 0.002)
        for role, verdict in verdicts.items()
        if verdict
    }


@pytest.mark.parametrize(
    ("champion", "anchor", "same_data", "new_data", "recorded"),
    [
        ("better", None, "promote", "promote", "better"),
        ("no worse", None, "not_better", "promote", "no worse"),
        ("worse", None, "not_better", "not_better", "worse"),
        ("cannot tell", None, "cannot_tell", "cannot_tell", "cannot tell"),
        ("better", "better", "promote", "promote", "better"),
        ("better", "no worse", "promote", "promote", "no worse"),  # the anchor stays
        ("better", "worse", "not_better", "not_better", "worse"),
        ("better", "cannot tell", "cannot_tell", "cannot_tell", "cannot tell"),
        ("no worse", "worse", "not_better", "not_better", "worse"),
        ("no worse", "cannot tell", "not_better", "cannot_tell", "cannot tell"),
        ("cannot tell", "worse", "not_better", "not_better", "worse"),
    ],
)
def test_decision_follows_from_both_verdicts(
    champion: Verdict, anchor: Verdict | None, same_data: str, new_data: str, recorded: str
) -> None:
    comparisons = _comparisons(champion, anchor)
    for data_changed, expected in ((False, same_data), (True, new_data)):
        outcome, verdict, reason = decide(comparisons, data_changed=data_changed)
        assert (outcome, verdict) == (expected, recorded)
        assert f"compared with champion: {champion}" in reason
        assert ("is needed, since the training data" in reason) == (outcome != "promote")


def test_level_and_margin_are_those_of_one_look() -> None:
    """A one-sided level of 0.025 / 52 has the normal quantile 3.30; the margin adds 0.84."""
    labels, first, second = draw_scores(2000, seed=0)
    estimate = estimate_auc_difference(labels, first, second)
    found = compare_at_level(
        labels, first, second, name="old", level=LEVEL / 52, margin=0.0001, max_margin=0.5
    )
    assert found.margin == pytest.approx((3.3015 + 0.84) * estimate.standard_error, rel=1e-4)
    assert found.comparison.interval.low == pytest.approx(
        estimate.value - 3.3015 * estimate.standard_error, abs=1e-6
    )
    wide = compare_at_level(labels, first, second, name="old", level=LEVEL / 52, margin=0.2, max_margin=0.5)
    assert wide.margin == 0.2
    small = compare_at_level(
        labels, first, second, name="old", level=LEVEL / 52, margin=0.0001, max_margin=0.0002
    )
    assert (small.margin, small.comparison.verdict) == (0.0002, "cannot tell")


def test_equal_models_are_no_worse_in_four_of_five_decisions() -> None:
    verdicts = []
    for seed in range(200):
        labels, first, second = draw_scores(400, seed=seed)
        found = compare_at_level(
            labels, first, second, name="old", level=LEVEL / 52, margin=1e-6, max_margin=0.5
        )
        verdicts.append(found.comparison.verdict)
    assert verdicts.count("no worse") / len(verdicts) == pytest.approx(0.8, abs=0.09)  # three standard errors
    assert verdicts.count("cannot tell") > 20


def test_missing_rows_are_those_that_the_margin_of_the_params_needs() -> None:
    labels, first, second = draw_scores(400, seed=1)
    if estimate_auc_difference(labels, first, second).value > 0:
        first, second = second, first
    lower = first - 0.05 * labels
    found = compare_at_level(
        labels, lower, second, name="old", level=LEVEL / 52, margin=0.002, max_margin=0.5
    )
    assert found.margin > 0.002
    assert found.comparison.verdict == "cannot tell"
    assert found.comparison.rows_needed is not None
    assert found.comparison.rows_needed > 400


def test_slice_that_is_certainly_lower_by_more_than_the_margin_is_named() -> None:
    parts = [
        SliceDifference("short", 100, -0.02, Interval(-0.03, -0.01)),
        SliceDifference("long", 100, -0.002, Interval(-0.003, -0.001)),
        SliceDifference("new", 100, 0.01, Interval(-0.01, 0.03)),
    ]
    assert find_worse_slices(parts, 0.002) == ["short: AUC -0.0200 (-0.0300 to -0.0100) on 100 reviews"]
    assert [part.has_moved for part in parts] == [True, True, False]


class _Tags:
    """Tags of a registry, one second apart."""

    def __init__(self) -> None:
        self.tags: list[RegistryTag] = []
        self._numbers = count(1)

    def add(self, name: str, commit: str, **details: str) -> None:
        created = datetime.fromtimestamp(len(self.tags), UTC)
        self.tags.append(RegistryTag(name, commit, "Ada", created, "subject", details))

    def register(self, commit: str) -> None:
        self.add(f"sentiment@v{commit}.0.0", commit)

    def assign(self, commit: str, **details: str) -> None:
        self.add(f"sentiment#champion#{next(self._numbers)}", commit, **details)

    def find_anchor(self) -> str | None:
        anchor = find_anchor(Registry(self.tags))
        return anchor.tag.commit if anchor else None


@pytest.fixture
def tags() -> _Tags:
    """A registry with five versions, of which the first one is the first champion."""
    tags = _Tags()
    for commit in "12345":
        tags.register(commit)
    assert tags.find_anchor() is None
    tags.assign("1", Verdict="first champion", Action="promote")
    return tags


def test_anchor_is_the_last_champion_that_was_better(tags: _Tags) -> None:
    assert tags.find_anchor() == "1"
    tags.assign("2", Verdict="no worse", Action="promote")
    assert tags.find_anchor() == "1"
    tags.assign("3", Verdict="better", Action="promote")
    tags.assign("4", Verdict="no worse", Action="promote")
    tags.assign("5", Verdict="no worse", Action="promote")
    assert tags.find_anchor() == "3"


def test_anchor_of_a_restored_champion_is_that_of_its_promotion(tags: _Tags) -> None:
    tags.assign("2", Verdict="no worse", Action="promote")
    tags.assign("3", Verdict="better", Action="promote")
    tags.assign("2", Action="rollback")
    assert tags.find_anchor() == "1"
    tags.assign("1", Action="rollback")
    assert tags.find_anchor() == "1"


def test_person_who_chooses_a_model_moves_the_anchor(tags: _Tags) -> None:
    tags.assign("2", Verdict="worse", Forced="worse: AUC -0.01", Action="promote")
    assert tags.find_anchor() == "2"
    tags.assign("3")  # as GTO assigns
    assert tags.find_anchor() == "3"
