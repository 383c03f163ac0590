"""The whole evaluation: measure all models, compare them, select one, examine the selected one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.evaluation.behaviour import BehaviourResult, find_violated_limits, run_behaviour_tests
from sentiment.evaluation.evaluated_model import (
    EVALUATED_SPLITS,
    EvaluatedModel,
    ModelName,
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

COMPARED_MODELS: tuple[tuple[ModelName, ModelName], ...] = (
    ("tuned", "baseline"),
    ("baseline", "reference"),
    ("tuned", "reference"),
)
"""Pairs of a model and the one that it is compared with."""


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
    models: Mapping[ModelName, EvaluatedModel]
    comparisons: Mapping[str, Mapping[Split, Comparison]]
    slices: Sequence[SliceResult]
    behaviour: Sequence[BehaviourResult]
    violated_limits: Sequence[str]

    @property
    def selected_model(self) -> EvaluatedModel:
        """The selected model."""
        return self.models[self.selected]

    def describe(self) -> list[str]:
        """Return one line for each result that a reader of the log needs."""
        return [
            *(
                f"{model}{', selected' if name == self.selected else ''}"
                for name, model in self.models.items()
            ),
            f"tuned over baseline: {self.comparisons['tuned_over_baseline']['holdout']}",
            f"{self.selected} over the linear reference: {self.describe_reference_verdict()}",
            *(f"limit violated: {text}" for text in self.violated_limits),
        ]

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
    tokenizer: Tokenizer,
    params: EvaluateParams,
) -> tuple[Evaluation, LinearReference]:
    """Measure the candidates and a linear reference model, select a candidate, and examine it.

    Args:
        candidates: folders of the trained models.
        reviews: reviews of the training split and of all evaluated splits, with their origin.
        tokens: tokens of all evaluated splits.
        tokenizer: tokenizer of the candidates.
        params: section `evaluate` of params.yaml.

    Returns:
        The results, and the fitted reference model.

    Raises:
        UserError: a split has too few reviews of a label, or a model cannot be read or evaluated.
    """
    splits = {split: SplitLabels.from_reviews(split, reviews[split]) for split in EVALUATED_SPLITS}
    networks = {name: load_model(folder) for name, folder in candidates.items()}
    reference = fit_reference(reviews["train"]["text"].to_pylist(), reviews["train"]["label"].to_numpy())
    logits: dict[ModelName, dict[Split, NDArray[np.floating]]] = {
        name: {
            split: predict_logits(network, tokens[split], f"{name} on {split}") for split in EVALUATED_SPLITS
        }
        for name, network in networks.items()
    }
    logits["reference"] = {
        split: reference.predict_logits(reviews[split]["text"].to_pylist()) for split in EVALUATED_SPLITS
    }
    models = {name: evaluate_model(name, scores, splits, params) for name, scores in logits.items()}
    comparisons = {
        f"{name}_over_{other}": compare_models(models[name], models[other], splits, params)
        for name, other in COMPARED_MODELS
    }
    selected = select_candidate(comparisons["tuned_over_baseline"])
    slices = compute_slices(
        reviews["test"],
        tokens["test"],
        models[selected].logits["test"],
        groups=splits["test"].groups,
        training_groups=set(reviews["train"]["group"].to_pylist()),
        confidence_level=params.confidence_level,
    )
    predictor = Predictor(networks[selected], tokenizer, models[selected].calibration.temperature)
    behaviour = run_behaviour_tests(
        predictor.predict, reviews["validation"]["text"].to_pylist(), params.confidence_level
    )
    violated = find_violated_limits(behaviour, params.limits.behaviour)
    return Evaluation(selected, models, comparisons, slices, behaviour, violated), reference
