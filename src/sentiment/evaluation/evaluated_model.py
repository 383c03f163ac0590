"""The evaluated models: logits, calibration and metrics by split, and comparisons of two models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.evaluation.calibration import choose_threshold, fit_temperature
from sentiment.evaluation.metrics import compute_classification_metrics
from sentiment.evaluation.verdict import Comparison, compare_scores
from sentiment.intervals import DECIMALS
from sentiment.model.classifier import compute_probabilities
from sentiment.model.model_config import Calibration
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate, Split

ModelName = Literal["baseline", "tuned", "reference"]

EVALUATED_SPLITS: tuple[Split, ...] = ("validation", "holdout", "test")
"""Splits on which each model is measured."""

COMPARED_SPLITS: tuple[Split, ...] = ("holdout", "test")
"""Splits on which models are compared: those that nothing was selected on before the comparison."""

MIN_REVIEWS_PER_LABEL = 2
"""Reviews of each label that a split needs; with fewer, the variance of the AUC is not defined."""


@dataclass(frozen=True)
class SplitLabels:
    """Labels and groups of the reviews of a split.

    Attributes:
        labels: 0 or 1, shape (n_reviews,).
        groups: group code of each review, shape (n_reviews,), where a review without a group is a group of
            its own; None if no review has a group.
    """

    labels: NDArray[np.int8]
    groups: NDArray[np.int64] | None

    @classmethod
    def from_reviews(cls, split: Split, reviews: pa.Table) -> Self:
        """Take the labels and groups of a table of reviews.

        Raises:
            UserError: the split has fewer than two reviews of a label.
        """
        labels = reviews["label"].to_numpy()
        for label in (0, 1):
            if (count := int((labels == label).sum())) < MIN_REVIEWS_PER_LABEL:
                raise UserError(
                    f"the {split} split has {count} reviews with label {label}; evaluate needs at least "
                    f"{MIN_REVIEWS_PER_LABEL} of each label: increase download.split.{split} or add reviews"
                )
        return cls(labels, encode_groups(reviews["group"].to_pandas()))


def encode_groups(groups: "pd.Series[str]") -> NDArray[np.int64] | None:
    """Return an integer code per review, equal for reviews of a group; None if no review has a group."""
    if groups.isna().all():
        return None
    codes = np.asarray(pd.factorize(groups)[0], dtype=np.int64)
    alone = codes < 0
    codes[alone] = codes.max() + 1 + np.arange(alone.sum())
    return codes


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its results on the splits.

    Attributes:
        name: name of the model.
        logits: logits by split, each of shape (n_reviews,).
        calibration: temperature and threshold, fitted on the validation split.
        metrics: metrics of logits and calibrated probabilities by split, from
            `compute_classification_metrics`.
    """

    name: ModelName
    logits: Mapping[Split, NDArray[np.floating]]
    calibration: Calibration
    metrics: Mapping[Split, dict[str, Any]]

    def __str__(self) -> str:
        aucs = (f"{self.metrics[split]['auc']:.4f} on {split}" for split in EVALUATED_SPLITS)
        return f"{self.name}: AUC {', '.join(aucs)}"

    def probabilities(self, split: Split) -> NDArray[np.float64]:
        """Return the calibrated probability that each review of a split is positive, shape (n_reviews,)."""
        return compute_probabilities(self.logits[split], self.calibration.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return calibration and metrics as they are written to a metrics file."""
        by_split = {str(split): metrics for split, metrics in self.metrics.items()}
        return {**self.calibration.model_dump(), **by_split}

    def scalar_metrics(self, split: Split, prefix: str = "") -> dict[str, float]:
        """Return the scalar metrics of a split, named `test.auc` and so on, without intervals and counts."""
        metrics = self.metrics[split].items()
        return {f"{prefix}{split}.{name}": value for name, value in metrics if not isinstance(value, dict)}


def evaluate_model(
    name: ModelName,
    logits: Mapping[Split, NDArray[np.floating]],
    splits: Mapping[Split, SplitLabels],
    params: EvaluateParams,
) -> EvaluatedModel:
    """Calibrate a model on the validation split and compute its metrics on all evaluated splits.

    Args:
        name: name of the model.
        logits: logits by split, each of shape (n_reviews,).
        splits: labels and groups by split.
        params: rule of the threshold, and confidence level.

    Raises:
        UserError: a logit is not finite, or the threshold's rule cannot be met.
    """
    for split in EVALUATED_SPLITS:
        if not np.isfinite(logits[split]).all():
            raise UserError(f"{name}: scores on {split} are not finite")
    labels = splits["validation"].labels
    temperature = round(fit_temperature(labels, logits["validation"]), DECIMALS)
    probabilities = compute_probabilities(logits["validation"], temperature)
    threshold = choose_threshold(labels, probabilities, params.threshold)
    metrics = {
        split: compute_classification_metrics(
            splits[split].labels,
            compute_probabilities(logits[split], temperature),
            threshold=threshold,
            confidence_level=params.confidence_level,
            scores=logits[split],
            groups=splits[split].groups,
        )
        for split in EVALUATED_SPLITS
    }
    return EvaluatedModel(name, logits, Calibration(temperature=temperature, threshold=threshold), metrics)


def compare_models(
    model: EvaluatedModel,
    reference: EvaluatedModel,
    splits: Mapping[Split, SplitLabels],
    params: EvaluateParams,
) -> dict[Split, Comparison]:
    """Compare a model with a reference model on each of the compared splits."""
    return {
        split: compare_scores(
            splits[split].labels,
            model.logits[split],
            reference.logits[split],
            groups=splits[split].groups,
            confidence_level=params.confidence_level,
            margin=params.margin,
        )
        for split in COMPARED_SPLITS
    }


def select_candidate(tuned_over_baseline: Mapping[Split, Comparison]) -> Candidate:
    """Return `tuned` if it is better than the baseline on the holdout split, and the baseline otherwise."""
    return "tuned" if tuned_over_baseline["holdout"].is_better else "baseline"
