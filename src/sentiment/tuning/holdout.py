"""The holdout fold of the validation split, on which the winner of a search is chosen.

The trial with the highest AUC on one set of reviews owes part of its rank to chance. A part of the validation
split is therefore held out: it drives no pruning, no choice of an epoch and no ranking of trials, and the
best trials are evaluated on it once.
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
    """Sorted row numbers of the validation split.

    Attributes:
        tuning: rows that drive early stopping, pruning and the ranking of trials.
        holdout: rows that are held out.
    """

    tuning: NDArray[np.int64]
    holdout: NDArray[np.int64]

    @classmethod
    def split(cls, labels: NDArray[np.int8], share: float) -> Self:
        """Hold out the last `share` of each label's reviews.

        Reviews of one film are next to each other. Contiguous blocks keep the number of films with reviews in
        both folds small.

        Raises:
            UserError: a fold would contain reviews of one label only.
        """
        of_label = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
        cuts = [len(rows) - round(share * len(rows)) for rows in of_label]
        if any(cut in (0, len(rows)) for rows, cut in zip(of_label, cuts, strict=True)):
            raise UserError(
                f"tune.holdout.share: {share} of the {len(labels)} validation reviews leaves a fold without "
                "positive or without negative reviews"
            )
        parts = [np.split(rows, [cut]) for rows, cut in zip(of_label, cuts, strict=True)]
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
    """Return the reviews that a trial may use: all splits, with the holdout fold taken out of validation."""
    folds = split_validation(reviews, holdout)
    return reviews if folds is None else replace(reviews, validation=reviews.validation.take(folds.tuning))


def rank_on_holdout(
    logits: Mapping[int, NDArray[np.floating]], labels: NDArray[np.int8], holdout: Holdout
) -> list[HoldoutResult]:
    """Rank the trials with the highest tuning AUC by their AUC on the holdout fold.

    Args:
        logits: by trial number, of all validation reviews, shape (reviews,).
        labels: of the same reviews, 0 or 1, shape (reviews,).
        holdout: size of the fold, and how many trials are ranked on it.

    Returns:
        The best trial first. Ties in holdout AUC are broken by tuning AUC, then by trial number.
    """
    folds = Folds.split(labels, holdout.share)
    results = []
    for trial, of_trial in logits.items():
        tuning_auc, holdout_auc = (
            float(roc_auc_score(labels[rows], of_trial[rows])) for rows in (folds.tuning, folds.holdout)
        )
        results.append(HoldoutResult(trial, tuning_auc, holdout_auc))
    best = sorted(results, key=lambda result: (-result.tuning_auc, result.trial))[: holdout.trials]
    return sorted(best, key=lambda result: -result.holdout_auc)


def build_holdout_metrics(results: list[HoldoutResult]) -> dict[str, Any] | None:
    """Return the result of `rank_on_holdout` in the form of a metrics file; None if it is empty."""
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
    """Return a copy of a table of trials with the column `holdout_auc`, empty for trials not in `results`."""
    by_trial = {result.trial: result.holdout_auc for result in results}
    column = table["trial"].map(by_trial).astype(float)
    table = table.copy()
    table.insert(list(table.columns).index("tuning_auc") + 1, "holdout_auc", column)
    return table
