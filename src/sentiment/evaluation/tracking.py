"""Log the evaluation to the MLflow runs that trained the models."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sentiment import paths
from sentiment.evaluation.evaluated_model import EVALUATED_SPLITS, EvaluatedModel
from sentiment.evaluation.evaluator import Evaluation
from sentiment.lineage import find_or_create_model_run
from sentiment.model.model_files import export_model
from sentiment.params import EvaluateParams
from sentiment.paths import Candidate, Split
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tracking import ModelResult, Run, dataset_name, open_store
from sentiment.tracking.logged_model import log_model, tag_logged_model
from sentiment.tracking.provenance import collect_evaluation_tags
from sentiment.tracking.ui import flatten

PLOTS_FOLDER = "evaluate"
"""Folder of the plots and the model card among the artifacts of a run."""


def log_evaluation(
    evaluation: Evaluation,
    tokens: Mapping[Split, TokenizedReviews],
    seen_texts: NDArray[np.uint64],
    params: EvaluateParams,
    *,
    inputs: Iterable[Path],
    card: str,
    plots: Mapping[str, Figure],
) -> None:
    """Log models, metrics, verdicts, model card and plots to the runs of baseline and tuned model.

    Args:
        evaluation: results of evaluate.
        tokens: tokens by evaluated split.
        seen_texts: fingerprints of the texts that the models were trained or validated on, shape (texts,).
        params: section `evaluate` of params.yaml.
        inputs: files that the results depend on.
        card: model card of the selected model, which is logged to both runs.
        plots: plots of all models by file name.
    """
    store = open_store()
    parameters = {name: str(value) for name, value in flatten(params.model_dump()).items()}
    evaluation_tags = {**collect_evaluation_tags(inputs), **parameters}
    for candidate, stage in paths.CANDIDATES.items():
        model = evaluation.models[candidate]
        run = find_or_create_model_run(store, paths.model(candidate), stage)
        for split in ("holdout", "test"):
            run.log_data(split, tokens[split], paths.reviews(split), stage="download")
        model_id = _log_model(run, candidate, model, seen_texts)
        for split in EVALUATED_SPLITS:
            result = ModelResult(model_id, dataset_name(split), tokens[split].digest)
            run.log_metrics(
                {**model.scalar_metrics(split), **_flatten_comparisons(evaluation, candidate, split)},
                result=result,
            )
            run.log_metrics(evaluation.models["reference"].scalar_metrics(split, prefix="reference."))
        run.log_figures(plots, folder=PLOTS_FOLDER)
        # In both runs: the other one may have the card of an evaluation that selected it.
        run.log_text(f"{PLOTS_FOLDER}/model_card.md", card)
        if candidate == evaluation.selected:
            run.log_metrics(_flatten_examination(evaluation))
        tags = {
            "selected": str(candidate == evaluation.selected).lower(),
            **_verdict_tags(evaluation, candidate),
        }
        run.tag(tags)
        tag_logged_model(run, model_id, tags)
        run.replace_tags("evaluate.", evaluation_tags)


def _log_model(run: Run, candidate: Candidate, model: EvaluatedModel, seen_texts: NDArray[np.uint64]) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / candidate
        export_model(
            paths.model(candidate),
            folder,
            paths.TOKENIZER,
            calibration=model.calibration,
            seen_texts=seen_texts,
        )
        return log_model(run, candidate, folder)


def _flatten_comparisons(evaluation: Evaluation, candidate: Candidate, split: Split) -> dict[str, float]:
    """Return the differences of a candidate from other models on a split, with their bounds, by metric."""
    metrics = {}
    for name, by_split in evaluation.comparisons.items():
        if name.startswith(f"{candidate}_over_") and split in by_split:
            comparison = by_split[split].to_dict()
            metrics[f"{name}.{split}.auc"] = comparison["difference"]
            metrics |= {f"{name}.{split}.{bound}": value for bound, value in comparison["interval"].items()}
    return metrics


def _verdict_tags(evaluation: Evaluation, candidate: Candidate) -> dict[str, str]:
    """Return the verdicts on a candidate by tag, such as `verdict.over_reference`."""
    return {
        f"verdict.{name.removeprefix(f'{candidate}_')}": by_split["holdout"].verdict
        for name, by_split in evaluation.comparisons.items()
        if name.startswith(f"{candidate}_over_")
    }


def _flatten_examination(evaluation: Evaluation) -> dict[str, float]:
    """Return pass rates of the behavioural tests and AUC by slice, by metric."""
    behaviour = {f"behaviour.{result.name}": result.pass_rate for result in evaluation.behaviour}
    slices = {f"slice.{part.name}.auc": part.auc for part in evaluation.slices if part.auc is not None}
    return {**behaviour, **slices, "violated_limits": float(len(evaluation.violated_limits))}
