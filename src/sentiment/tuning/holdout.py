"""The winner is chosen on reviews that steered no trial.

The best of many trials on one set of reviews is partly the luckiest there. So a part of the validation split
is set aside: it prunes nothing, picks no epoch and ranks no trial, and the best trials meet on it once.
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
    """Rows of the validation split, in order: of what steers the trials, and of what is set aside."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def split(cls, labels: NDArray[np.int8], share: float) -> Self:
        """Set the last `share` of each label's reviews aside.

        In blocks, since reviews of one film follow one another: so few films have some in both folds.
        Raises UserError where a fold has no review of one label.
        """
        of_label = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
        cuts = [len(rows) - round(share * len(rows)) for rows in of_label]
        if any(cut in (0, len(rows)) for rows, cut in zip(of_label, cuts, strict=True)):
            raise UserError(
                f"tune.holdout.share: {share} of the {len(labels)} validation reviews leaves a fold without "
                "positive or without negative reviews"
            )
        parts = [np.split(rows, [cut]) for rows, cut in zip(of_label, cuts, strict=True)]
        first, second = (np.sort(np.concatenate(fold)) for fold in zip(*parts, strict=True))
        return cls(first, second)


@dataclass(frozen=True)
class HoldoutResult:
    """One of the best trials, on both folds of the validation reviews."""

    trial: int
    tuning_auc: float
    holdout_auc: float


def folds_of(reviews: TrainingData, holdout: Holdout | None) -> Folds | None:
    """Return the folds of the validation split; None where none is set aside."""
    return None if holdout is None else Folds.split(reviews.validation.labels, holdout.share)


def tuning_reviews(reviews: TrainingData, holdout: Holdout | None) -> TrainingData:
    """Return the reviews that may steer trials: of the validation split, the first fold."""
    folds = folds_of(reviews, holdout)
    return reviews if folds is None else replace(reviews, validation=reviews.validation.take(folds.first))


def rank_on_holdout(
    logits: Mapping[int, NDArray[np.floating]], labels: NDArray[np.int8], holdout: Holdout
) -> list[HoldoutResult]:
    """Return the best trials on the first fold, the best of them on the second first.

    logits: by trial number, of all validation reviews, shape (reviews,); labels alike. Where trials are equal
    on the second fold the better one on the first comes first, and of those the earlier.
    """
    folds = Folds.split(labels, holdout.share)
    scored = []
    for trial, of_trial in logits.items():
        first, second = (
            float(roc_auc_score(labels[rows], of_trial[rows])) for rows in (folds.first, folds.second)
        )
        scored.append(HoldoutResult(trial, first, second))
    best = sorted(scored, key=lambda one: (-one.tuning_auc, one.trial))[: holdout.trials]
    return sorted(best, key=lambda one: -one.holdout_auc)


def holdout_metrics(confirmed: list[HoldoutResult]) -> dict[str, Any] | None:
    """Return what `rank_on_holdout` found for a metrics file; None where it was not asked."""
    if not confirmed:
        return None
    return {
        str(one.trial): {
            "tuning_auc": round(one.tuning_auc, 6),
            "holdout_auc": round(one.holdout_auc, 6),
        }
        for one in confirmed
    }


def with_holdout_auc(table: pd.DataFrame, confirmed: list[HoldoutResult]) -> pd.DataFrame:
    """Return a table of trials with a column for the AUC on the second fold, where a trial met it."""
    by_trial = {one.trial: one.holdout_auc for one in confirmed}
    column = table["trial"].map(by_trial).astype(float)
    table = table.copy()
    table.insert(list(table.columns).index("tuning_auc") + 1, "holdout_auc", column)
    return table
