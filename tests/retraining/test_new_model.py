"""The model gate on real models, whose test split is large enough to decide on them."""

import json
import shutil
from typing import Any

import pyarrow.parquet as pq
import pytest

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params import Params, load_params
from sentiment.registry.promotion import promote
from sentiment.registry.state import Assignment, open_registry, require_champion
from sentiment.retraining.changes import compute_test_digest, have_review_files_changed
from sentiment.retraining.gate_result import GateResult
from sentiment.retraining.model_gate import decide_on_model, find_anchor
from tests.registry.registered_project import HOLDOUT, RegisteredProject

TEST = "data/reviews/test.parquet"


@pytest.fixture
def gated(registered: RegisteredProject) -> RegisteredProject:
    """The project with its large holdout split as test split, without violated limits, not committed."""
    registered.git("checkout", "-q", registered.trained)
    registered.project.run("dvc", "checkout", "--force", "--quiet")
    (registered.root / TEST).unlink()
    shutil.copy(registered.root / HOLDOUT, registered.root / TEST)
    registered.project.run("dvc", "commit", "--force", "--quiet")
    return registered


def _decide_on_model(champion: Assignment | None, *, looks: int = 0, **changes: Any) -> GateResult:
    params: Params = load_params()
    retrain = params.retrain.model_copy(update=changes)
    return decide_on_model(
        paths.SELECTED,
        champion,
        champion and find_anchor(open_registry()),
        data_changed=False,
        looks=looks,
        params=params.model_copy(update={"retrain": retrain}),
    )


def test_trained_model_is_promoted_over_an_untrained_one(gated: RegisteredProject) -> None:
    first = _decide_on_model(None)
    assert (first.outcome, first.verdict, first.is_look) == ("promote", "first champion", False)
    promote(gated.untrained, first=True)
    champion = require_champion(open_registry())

    result = _decide_on_model(champion, looks=3)
    assert (result.outcome, result.verdict) == ("promote", "better")
    assert (result.is_look, result.looks, result.level) == (True, 4, 0.025 / 52)
    assert list(result.comparisons) == ["champion"]
    assert result.reason.startswith("compared with sentiment@v1.0.0: better, AUC +0.")
    assert result.comparisons["champion"].comparison.rows + result.left_out > 200
    assert result.moved_slices
    assert json.loads(json.dumps(result.to_dict()))["comparisons"]["champion"]["verdict"] == "better"

    used_up = _decide_on_model(champion, looks=52)
    assert (used_up.outcome, used_up.is_look, used_up.looks) == ("cannot_tell", False, 52)
    assert "the test split is used up: it has decided on 52 models" in used_up.reason

    digest, table = compute_test_digest(), pq.read_table(gated.root / TEST)
    (gated.root / TEST).unlink()
    pq.write_table(table.take(list(range(len(table)))[::-1]), gated.root / TEST, compression="none")
    assert compute_test_digest() == digest, "the same reviews in another file are the same test split"
    assert not have_review_files_changed(gated.untrained)


def test_equal_model_is_compared_with_the_anchor_too(gated: RegisteredProject) -> None:
    promote(gated.untrained, first=True)
    promote(gated.trained, force=True, reason="trial")
    registry = open_registry()
    champion, anchor = require_champion(registry), registry.champions[0]
    params = load_params()
    results = {
        data_changed: decide_on_model(
            paths.SELECTED, champion, anchor, data_changed=data_changed, looks=0, params=params
        )
        for data_changed in (False, True)
    }
    assert [results[key].outcome for key in (False, True)] == ["not_better", "promote"]
    assert results[True].verdict == "no worse"
    assert results[True].comparisons["anchor"].comparison.verdict == "better"
    assert results[True].comparisons["champion"].comparison.difference == 0
    assert "better than the champion is needed, since the training data is the same" in results[False].reason


def test_limits_and_linear_reference_come_before_the_test_split(
    gated: RegisteredProject,
) -> None:
    promote(gated.untrained, first=True)
    champion = require_champion(open_registry())
    linear = _decide_on_model(champion, beat_linear=True)
    assert linear.outcome in ("cannot_tell", "not_better")
    assert linear.reason.startswith("not better than the linear reference on the holdout split")
    assert not linear.is_look

    comparisons = gated.project.metrics("evaluate")["comparisons"]
    for name, splits in comparisons.items():
        if name.endswith("_over_reference"):
            splits["holdout"] |= {"verdict": "cannot tell", "rows_needed": 1200}
    _write_metrics(gated, comparisons=comparisons)
    undecided = _decide_on_model(champion, beat_linear=True)
    assert undecided.reason.endswith("; about 1,200 more holdout reviews would decide")
    assert (undecided.rows_missing, undecided.undecided_split) == (1200, "holdout")

    _write_metrics(gated, violated_limits=["behavioural test names: 1 of 2"])
    violating = _decide_on_model(champion)
    assert (violating.outcome, violating.is_look) == ("not_better", False)
    assert violating.reason == "it violates limits: behavioural test names: 1 of 2"

    (gated.root / "metrics" / "evaluate.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics/evaluate\.json is missing or not the one in dvc\.lock"):
        _decide_on_model(champion)


def _write_metrics(project: RegisteredProject, **changes: Any) -> None:
    path = project.root / "metrics" / "evaluate.json"
    path.write_text(json.dumps(project.project.metrics("evaluate") | changes))
    project.project.run("dvc", "commit", "--force", "--quiet")


def test_other_training_reviews_are_noticed(gated: RegisteredProject) -> None:
    train = gated.root / "data" / "reviews" / "train.parquet"
    content = train.read_bytes()
    train.unlink()
    train.write_bytes(content + b"\0")
    gated.project.run("dvc", "commit", "--force", "--quiet")
    assert have_review_files_changed(gated.untrained)
    with pytest.raises(UserError, match=r"has no data/reviews/train\.parquet"):
        have_review_files_changed(f"{gated.untrained}~2")
