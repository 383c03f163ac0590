"""The whole evaluation: measure all models, compare them, select one, examine the selected one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sentiment.evaluation.behaviour import BehaviourResult, find_violated_limits, run_behaviour_tests
from sentiment.evaluation.evaluated_model import (
    EVALUATED_SPLITS,
    EvaluatedModel,
    SplitLabels,
    compare_models,
    evaluate_model,
    select_candidate,
)
from sentiment.evaluation.reference import LinearReference, fit_reference
from sentiment.evaluation.slices import SliceResult, compute_slices
from sentiment.evaluation.verdict import Comparison
from sentiment.model.classifier import predict_logits
from sentiment.model.model_files import load_model
from sentiment.model.predictor import Predictor
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate, Split
from sentiment.tokens.token_store import TokenizedReviews


@dataclass(frozen=True)
class Evaluation:
    """All results of evaluate, as its metrics file, MLflow and the model card report them.

    Attributes:
        selected: name of the selected model.
        models: baseline, tuned and linear reference model, by name.
        comparisons: comparisons by split, by a name such as `tuned_over_baseline`.
        slices: AUC of the selected model on parts of the test split.
        behaviour: results of the behavioural tests on the selected model.
        violated_limits: limits of params.yaml that the selected model violates, one sentence each.
    """

    selected: Candidate
    models: Mapping[str, EvaluatedModel]
    comparisons: Mapping[str, Mapping[Split, Comparison]]
    slices: Sequence[SliceResult]
    behaviour: Sequence[BehaviourResult]
    violated_limits: Sequence[str]

    @property
    def selected_model(self) -> EvaluatedModel:
        """The selected model."""
        return self.models[self.selected]

    def describe_reference_verdict(self) -> str:
        """Describe the comparison of the selected model with the linear reference on the holdout split.

        Unless the verdict is `better`, it is in capitals.
        """
        comparison = self.comparisons[f"{self.selected}_over_reference"]["holdout"]
        text = str(comparison)
        return text if comparison.is_better else f"NOT BETTER THAN A LINEAR MODEL: {text}"

    def to_dict(self) -> dict[str, Any]:
        """Return all results as they are written to the metrics file."""
        return {
            "selected": self.selected,
            **self.selected_model.to_dict(),
            "comparisons": {
                name: {split: comparison.to_dict() for split, comparison in by_split.items()}
                for name, by_split in self.comparisons.items()
            },
            "slices": {part.name: part.to_dict() for part in self.slices},
            "behaviour": {result.name: result.to_dict() for result in self.behaviour},
            "violated_limits": list(self.violated_limits),
            "models": {name: model.to_dict() for name, model in self.models.items()},
        }


def evaluate(
    candidates: Mapping[Candidate, Path],
    reviews: Mapping[Split, pa.Table],
    tokens: Mapping[Split, TokenizedReviews],
    params: EvaluateParams,
) -> tuple[Evaluation, LinearReference]:
    """Measure the candidates and a linear reference model, and select a candidate.

    Args:
        candidates: folders of the trained models.
        reviews: reviews of train and of all evaluated splits.
        tokens: tokens of all evaluated splits.
        params: section `evaluate` of params.yaml.

    Returns:
        The results, and the reference model.
    """
