"""Models measured on splits: groups, calibration, selection, and what cannot be evaluated."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from sentiment.errors import UserError
from sentiment.evaluation.evaluated_model import (
    EVALUATED_SPLITS,
    EvaluatedModel,
    ModelName,
    SplitLabels,
    compare_models,
    encode_groups,
    evaluate_model,
    select_candidate,
)
from sentiment.evaluation.plots import _build_tables
from sentiment.params import EvaluateParams
from sentiment.paths import Split

PARAMS = EvaluateParams.model_validate(
    {
        "confidence_level": 0.95,
        "margin": 0.002,
        "threshold": {"kind": "fixed", "value": 0.5},
        "limits": {"behaviour": {}},
    }
)
REVIEWS = 600
SPLITS: dict[Split, SplitLabels] = {
    split: SplitLabels((np.arange(REVIEWS) % 2).astype(np.int8), None) for split in EVALUATED_SPLITS
}


def _evaluate(name: ModelName, noise: float, seed: int = 1, **changes: Any) -> EvaluatedModel:
    """Evaluate scores that follow the labels with some noise; changes: logits by split."""
    rng = np.random.default_rng(seed)
    logits = {split: SPLITS[split].labels - 0.5 + rng.normal(0, noise, REVIEWS) for split in EVALUATED_SPLITS}
    return evaluate_model(name, {**logits, **changes}, SPLITS, PARAMS)


def test_tuned_model_must_be_better_to_replace_the_baseline() -> None:
    baseline, better, similar = (
        _evaluate("baseline", 0.6),
        _evaluate("tuned", 0.3),
        _evaluate("tuned", 0.59, 2),
    )
    selected = [
        select_candidate(compare_models(tuned, baseline, SPLITS, PARAMS))
        for tuned in (better, similar, baseline)
    ]
    assert selected == ["tuned", "baseline", "baseline"]


def test_selection_ignores_the_test_split() -> None:
    baseline = _evaluate("baseline", 0.6)
    cheating = _evaluate("tuned", 0.6, test=SPLITS["test"].labels.astype(float))
    comparisons = compare_models(cheating, baseline, SPLITS, PARAMS)
    assert comparisons["test"].is_better
    assert select_candidate(comparisons) == "baseline"


def test_calibration_is_fitted_on_validation_alone() -> None:
    rng = np.random.default_rng(5)
    plain = _evaluate("baseline", 0.6)
    other = _evaluate("baseline", 0.6, holdout=rng.normal(size=REVIEWS), test=rng.normal(size=REVIEWS))
    assert plain.calibration == other.calibration
    changed = _evaluate("baseline", 0.6, validation=rng.normal(size=REVIEWS))
    assert plain.calibration.temperature != changed.calibration.temperature


def test_reviews_without_a_group_are_groups_of_their_own() -> None:
    codes = encode_groups(pd.Series(["a", None, "b", "a", None]))
    assert codes is not None
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 4
    assert encode_groups(pd.Series([None, None], dtype="str")) is None


def test_split_without_enough_reviews_of_a_label_is_named() -> None:
    reviews = pa.table({"label": pa.array([1, 1, 0], pa.int8()), "group": pa.array([None] * 3, pa.string())})
    with pytest.raises(
        UserError, match=r"holdout split has 1 reviews with label 0.*download\.split\.holdout"
    ):
        SplitLabels.from_reviews("holdout", reviews)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(value: float) -> None:
    logits = np.random.default_rng(5).normal(size=REVIEWS)
    logits[3] = value
    with pytest.raises(UserError, match="tuned: scores on test are not finite"):
        _evaluate("tuned", 0.5, test=logits)


def test_metrics_and_curves_rank_reviews_whose_probabilities_are_rounded_to_one() -> None:
    """A model that separates the validation split gets a low temperature, which rounds probabilities to 1."""
    labels = SPLITS["validation"].labels
    noise = np.random.default_rng(5).normal(0, 2, REVIEWS).astype(np.float32)
    logits = {
        "validation": (4 * labels - 2).astype(np.float32),
        "holdout": (8 + labels + noise).astype(np.float32),
        "test": (8 + labels + noise).astype(np.float32),
    }
    model = evaluate_model("tuned", logits, SPLITS, PARAMS)
    assert len(np.unique(model.probabilities("test"))) < REVIEWS / 10
    auc = roc_auc_score(labels, logits["test"])
    assert model.metrics["test"]["auc"] == pytest.approx(auc, abs=1e-6)
    precision = average_precision_score(labels, logits["test"])
    assert model.metrics["test"]["average_precision"] == pytest.approx(precision, abs=1e-6)
    for name, interval in model.metrics["test"]["interval"].items():
        assert interval["low"] <= model.metrics["test"][name] <= interval["high"], name

    baseline = _evaluate("baseline", 3.0)
    comparison = compare_models(model, baseline, SPLITS, PARAMS)["test"]
    difference = model.metrics["test"]["auc"] - baseline.metrics["test"]["auc"]
    assert comparison.difference == pytest.approx(difference, abs=2e-6)

    tables = _build_tables(model, labels)
    curve = tables["roc"]
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(auc, abs=1e-3)
    assert len(tables["precision_recall"]) > REVIEWS / 10


def test_equal_scores_have_no_information() -> None:
    constant = {split: np.zeros(REVIEWS) for split in EVALUATED_SPLITS}
    model = evaluate_model("baseline", constant, SPLITS, PARAMS)
    assert model.metrics["test"]["auc"] == 0.5
    comparison = compare_models(model, model, SPLITS, PARAMS)["holdout"]
    assert (comparison.difference, comparison.verdict) == (0.0, "no worse")
