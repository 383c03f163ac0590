"""The holdout fold of the validation split, on which the winner of a search is selected.

The highest of many AUCs on the same reviews is biased upwards. A part of the validation split is therefore
held out: it is not used for early stopping, pruning or ranking, and the best trials are evaluated on it once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.params.tune import Holdout
from sentiment.tokens.batches import TrainingData


@dataclass(frozen=True)
class Folds:
    """Partition of the validation split into a tuning fold and a holdout fold.

    Attributes:
        tuning: sorted row numbers of the reviews that drive early stopping, pruning and ranking of trials.
        holdout: sorted row numbers of the reviews that are held out.
    """

    tuning: NDArray[np.int64]
    holdout: NDArray[np.int64]

    @classmethod
    def split(cls, labels: NDArray[np.int8], share: float) -> Self:
        """Hold out the last `share` of the reviews of each label.

        Reviews of the same film are adjacent, so contiguous folds have few films in common.

        Args:
            labels: labels of the validation reviews, 0 or 1, shape (n_reviews,).
            share: share of the reviews to hold out, between 0 and 1.

        Raises:
            UserError: a fold would have no positive or no negative reviews.
        """
        rows_by_label = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
        cuts = [len(rows) - round(share * len(rows)) for rows in rows_by_label]
        if any(cut in (0, len(rows)) for rows, cut in zip(rows_by_label, cuts, strict=True)):
            raise UserError(
                f"tune.holdout.share: {share} of the {len(labels)} validation reviews leaves a fold without "
                "positive or without negative reviews"
            )
        parts = [np.split(rows, [cut]) for rows, cut in zip(rows_by_label, cuts, strict=True)]
        tuning, holdout = (np.sort(np.concatenate(fold)) for fold in zip(*parts, strict=True))
        return cls(tuning, holdout)


@dataclass(frozen=True)
class HoldoutResult:
    """AUC of a trial on both folds of the validation split."""

    trial: int
    tuning_auc: float
    holdout_auc: float


def split_validation(reviews: TrainingData, holdout: Holdout | None) -> Folds | None:
    """Return the folds of the validation split; None if no reviews are held out."""
    return None if holdout is None else Folds.split(reviews.validation.labels, holdout.share)


def select_tuning_reviews(reviews: TrainingData, holdout: Holdout | None) -> TrainingData:
    """Return the reviews that trials may use, which exclude the holdout fold of the validation split."""
    folds = split_validation(reviews, holdout)
    return reviews if folds is None else replace(reviews, validation=reviews.validation.take(folds.tuning))


def rank_on_holdout(
    logits: Mapping[int, NDArray[np.floating]], labels: NDArray[np.int8], holdout: Holdout
) -> list[HoldoutResult]:
    """Rank the trials with the highest tuning AUC by their AUC on the holdout fold.

    Args:
        logits: logits of all validation reviews by trial number, each of shape (n_reviews,).
        labels: labels of the validation reviews, 0 or 1, shape (n_reviews,).
        holdout: share of the reviews to hold out, and number of trials to rank.

    Returns:
        Results sorted by holdout AUC, highest first. Ties are sorted by tuning AUC, then by trial number.
    """
    folds = Folds.split(labels, holdout.share)
    results = []
    for trial, trial_logits in logits.items():
        tuning_auc, holdout_auc = (
            float(roc_auc_score(labels[rows], trial_logits[rows])) for rows in (folds.tuning, folds.holdout)
        )
        results.append(HoldoutResult(trial, tuning_auc, holdout_auc))
    best = sorted(results, key=lambda result: (-result.tuning_auc, result.trial))[: holdout.trials]
    return sorted(best, key=lambda result: -result.holdout_auc)


def build_holdout_metrics(results: list[HoldoutResult]) -> dict[str, Any] | None:
    """Return the content of a metrics file for results of `rank_on_holdout`; None if there are none."""
    if not results:
        return None
    return {
        str(result.trial): {
            "tuning_auc": round(result.tuning_auc, 6),
            "holdout_auc": round(result.holdout_auc, 6),
        }
        for result in results
    }


def add_holdout_auc(table: pd.DataFrame, results: list[HoldoutResult]) -> pd.DataFrame:
    """Return a copy of a table of trials with a column `holdout_auc`, NaN for trials without a result."""
    auc_by_trial = {result.trial: result.holdout_auc for result in results}
    column = table["trial"].map(auc_by_trial).astype(float)
    table = table.copy()
    table.insert(list(table.columns).index("tuning_auc") + 1, "holdout_auc", column)
    return table
