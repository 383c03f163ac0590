"""The holdout fold of the validation split, and the ranking of trials on it."""

import numpy as np
import pandas as pd
import pytest

from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.tune import Holdout
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tuning.holdout import (
    Folds,
    add_holdout_auc,
    build_holdout_metrics,
    rank_on_holdout,
    select_tuning_reviews,
)
from tests.project import ROOT

LABELS = np.array([0] * 10 + [1] * 20, dtype=np.int8)
HALF = Holdout(trials=2, share=0.5)


def test_folds_are_disjoint_complete_and_balanced() -> None:
    folds = Folds.split(LABELS, 0.3)
    assert sorted([*folds.tuning, *folds.holdout]) == list(range(30))
    assert len(folds.holdout) == 9
    assert LABELS[folds.holdout].mean() == pytest.approx(LABELS.mean())


@pytest.mark.parametrize("labels", [LABELS, np.array([0, 1, 1] * 10, dtype=np.int8)], ids=["blocks", "mixed"])
def test_each_label_is_split_into_two_blocks(labels: np.ndarray) -> None:
    """At most one film per label therefore has reviews in both folds."""
    folds = Folds.split(labels, 0.4)
    for label in (0, 1):
        first, second = (rows[labels[rows] == label] for rows in (folds.tuning, folds.holdout))
        assert first.max() < second.min()


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_fold_without_a_label_is_rejected(share: float) -> None:
    with pytest.raises(
        UserError, match=rf"tune\.holdout\.share: {share} of the 30 validation reviews"
    ) as raised:
        Folds.split(LABELS, share)
    assert raised.value.exit_status == 2


def _reviews() -> TrainingData:
    ids = [[2 + row] * (1 + row % 3) for row in range(len(LABELS))]
    split = TokenizedReviews.from_lists(ids, LABELS)
    return TrainingData(100, split, split)


def test_trials_use_the_tuning_fold_only() -> None:
    reviews = _reviews()
    seen = select_tuning_reviews(reviews, HALF)
    folds = Folds.split(LABELS, 0.5)
    assert len(seen.validation) == len(folds.tuning)
    for position, row in enumerate(folds.tuning):
        assert seen.validation[position].tolist() == reviews.validation[row].tolist()
    assert seen.validation.labels.tolist() == LABELS[folds.tuning].tolist()
    assert seen.train is reviews.train


@pytest.mark.parametrize("holdout", [None, Holdout(trials=1, share=0.5)], ids=["none", "one"])
def test_trials_use_all_validation_reviews_without_a_holdout_fold(holdout: Holdout | None) -> None:
    tune = load_params(ROOT / "params.yaml").tune.model_copy(update={"holdout": holdout})
    reviews = _reviews()
    assert select_tuning_reviews(reviews, tune.active_holdout) is reviews


def test_holdout_is_active_with_two_trials() -> None:
    tune = load_params(ROOT / "params.yaml").tune.model_copy(update={"holdout": HALF})
    assert tune.active_holdout == HALF


def _logits(first_wrong: int, second_wrong: int) -> np.ndarray:
    """Logits that are correct except for some reviews of either fold."""
    logits = LABELS.astype(np.float32)
    folds = Folds.split(LABELS, 0.5)
    for rows, wrong in ((folds.tuning, first_wrong), (folds.holdout, second_wrong)):
        logits[rows[-wrong or len(rows) :]] = -1.0
    return logits


def test_best_trials_by_tuning_auc_are_ranked_by_holdout_auc() -> None:
    lucky, steady, bad = _logits(0, 5), _logits(2, 1), _logits(6, 0)
    results = rank_on_holdout({0: bad, 3: lucky, 7: steady}, LABELS, HALF)
    assert [one.trial for one in results] == [7, 3]
    assert results[0].tuning_auc < results[1].tuning_auc
    assert results[0].holdout_auc > results[1].holdout_auc
    assert build_holdout_metrics(results) == {
        "7": {
            "tuning_auc": round(results[0].tuning_auc, 6),
            "holdout_auc": round(results[0].holdout_auc, 6),
        },
        "3": {"tuning_auc": 1.0, "holdout_auc": round(results[1].holdout_auc, 6)},
    }


def test_ties_are_broken_by_tuning_auc_then_by_number() -> None:
    equal, better = _logits(2, 1), _logits(1, 1)
    three = Holdout(trials=3, share=0.5)
    assert [one.trial for one in rank_on_holdout({9: equal, 4: equal, 6: better}, LABELS, three)] == [6, 4, 9]


def test_table_has_the_holdout_auc_of_trials_evaluated_on_it() -> None:
    table = pd.DataFrame({"trial": [0, 1, 2], "tuning_auc": [0.5, 0.9, 0.8], "optimizer_steps": [1, 2, 3]})
    shown = add_holdout_auc(table, rank_on_holdout({1: _logits(0, 5), 2: _logits(2, 1)}, LABELS, HALF))
    assert list(shown.columns) == ["trial", "tuning_auc", "holdout_auc", "optimizer_steps"]
    assert shown["holdout_auc"].isna().tolist() == [True, False, False]
    assert add_holdout_auc(table, [])["holdout_auc"].isna().all()
