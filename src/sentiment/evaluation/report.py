"""The model card: one page on the selected model, its data, metrics, verdicts and limits."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from sentiment.evaluation.calibration import compute_calibration_error
from sentiment.evaluation.evaluated_model import EVALUATED_SPLITS
from sentiment.evaluation.evaluator import Evaluation
from sentiment.evaluation.verdict import Comparison
from sentiment.model.classifier import compute_probabilities
from sentiment.params import EvaluateParams
from sentiment.params.model import ModelParams
from sentiment.paths import Split

METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "log_loss": "log loss, nats per review",
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
}
"""Metrics of the card, with their descriptions."""

PURPOSE = (
    "The model predicts the probability that a film review in English is positive. It is meant for ranking, "
    "counting and filtering reviews like those it was trained on. It is not meant for other languages or "
    "products, for text that is not a review, or for decisions about the person who wrote it."
)

SEED_NOTE = (
    "A verdict is about these two models. Another seed alone changes the AUC of a configuration by about "
    "0.0005, so a small difference does not show that one configuration is better than another."
)


def render_model_card(
    evaluation: Evaluation,
    reviews: Mapping[Split, pa.Table],
    model_params: ModelParams,
    params: EvaluateParams,
) -> str:
    """Render the model card as Markdown. Equal inputs give equal text; it contains no date.

    Args:
        evaluation: results of evaluate.
        reviews: reviews by split.
        model_params: architecture of the selected model.
        params: section `evaluate` of params.yaml.
    """
    sections = {
        "Purpose": PURPOSE,
        "Data": _describe_data(reviews),
        "Metrics": _describe_metrics(evaluation, params),
        "Verdicts": _describe_verdicts(evaluation, params),
        "Slices": _describe_slices(evaluation),
        "Behaviour": _describe_behaviour(evaluation, params),
        "Calibration": _describe_calibration(evaluation, reviews["test"]),
        "Limits": _describe_limits(evaluation, reviews),
        "How to make it again": _describe_reproduction(model_params),
    }
    return (
        "\n\n".join(
            [
                f"# Model card: {evaluation.selected}",
                _summarize(evaluation),
                *(f"## {title}\n\n{text}" for title, text in sections.items()),
            ]
        )
        + "\n"
    )


def _summarize(evaluation: Evaluation) -> str:
    test, selected = evaluation.selected_model.metrics["test"], evaluation.selected
    bounds, tuned = test["interval"]["auc"], evaluation.comparisons["tuned_over_baseline"]["holdout"]
    lines = [
        f"`models/selected` is the **{selected}** model, with a test AUC of {test['auc']:.4f} "
        f"({bounds['low']:.4f} to {bounds['high']:.4f}).",
        f"- The tuned model, compared with the baseline: {tuned}.",
        f"- The selected model, compared with a linear one: {evaluation.describe_reference_verdict()}.",
        f"- Limits for promotion: {len(evaluation.violated_limits) or 'none'} violated.",
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def _describe_data(reviews: Mapping[Split, pa.Table]) -> str:
    rows = []
    for split, table in reviews.items():
        sources = ", ".join(_list_sources(table))
        positive = sum(table["label"].to_pylist()) / len(table)
        rows.append([split, f"{len(table):,}", f"{positive:.1%}", sources])
    return _format_table(["split", "reviews", "positive", "sources"], rows)


def _describe_metrics(evaluation: Evaluation, params: EvaluateParams) -> str:
    header = ["test split", *(model.name for model in evaluation.models.values())]
    rows = []
    for name, description in METRICS.items():
        row = [description]
        for model in evaluation.models.values():
            bounds = model.metrics["test"]["interval"][name]
            value = model.metrics["test"][name]
            row.append(f"{value:.4f} ({bounds['low']:.4f} to {bounds['high']:.4f})")
        rows.append(row)
    rows += [
        [f"AUC on {split}", *(f"{model.metrics[split]['auc']:.4f}" for model in evaluation.models.values())]
        for split in EVALUATED_SPLITS
        if split != "test"
    ]
    level = f"{params.confidence_level:.0%}"
    note = f"In parentheses: confidence intervals at {level}. `reference` is a linear model."
    return f"{_format_table(header, rows)}\n\n{note}"


def _describe_verdicts(evaluation: Evaluation, params: EvaluateParams) -> str:
    rows = [
        [
            name.replace("_", " "),
            split,
            f"**{comparison.verdict}**",
            _format_difference(comparison),
            f"{comparison.rows:,}",
            "" if comparison.rows_needed is None else f"{comparison.rows_needed:,}",
        ]
        for name, by_split in evaluation.comparisons.items()
        for split, comparison in by_split.items()
    ]
    header = ["comparison", "split", "verdict", "difference in AUC", "reviews", "more reviews to decide"]
    definition = (
        "better: the interval is above 0; no worse: above "
        f"-{params.margin}; worse: below 0; cannot tell: none of these. Only the holdout split selects."
    )
    return f"{_format_table(header, rows)}\n\n{definition} {SEED_NOTE}"


def _describe_slices(evaluation: Evaluation) -> str:
    whole = evaluation.selected_model.metrics["test"]["auc"]
    rows = []
    for part in evaluation.slices:
        interval = part.interval
        auc = "" if interval is None else f"{part.auc:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        rows.append(
            [
                f"{part.name}: {part.description}",
                f"{part.reviews:,}",
                auc,
                "**worse than the whole**" if part.below else "",
            ]
        )
    table = _format_table(["part of the test split", "reviews", "AUC", ""], rows)
    return f"{table}\n\nThe AUC of the whole split is {whole:.4f}."


def _describe_behaviour(evaluation: Evaluation, params: EvaluateParams) -> str:
    rows = []
    for result in evaluation.behaviour:
        limit = params.limits.behaviour.get(result.name)
        met = "" if limit is None else "yes" if result.pass_rate >= limit else "**no**"
        rows.append(
            [
                result.name.replace("_", " "),
                f"{result.cases:,}",
                f"{result.pass_rate:.1%}",
                "" if limit is None else f"{limit:.1%}",
                met,
            ]
        )
    return _format_table(["test", "cases", "passed", "limit", "met"], rows)


def _describe_calibration(evaluation: Evaluation, test: pa.Table) -> str:
    calibration, logits = evaluation.selected_model.calibration, evaluation.selected_model.logits["test"]
    before, after = (
        compute_calibration_error(test["label"].to_numpy(), compute_probabilities(logits, temperature))
        for temperature in (1.0, calibration.temperature)
    )
    return (
        f"Logits are divided by a temperature of {calibration.temperature:.3f}, which was fitted on the "
        f"validation split. The expected calibration error on test is {after:.4f}; without the temperature, "
        f"it would be {before:.4f}. A review counts as positive from a probability of "
        f"{calibration.threshold:.3f}."
    )


def _describe_limits(evaluation: Evaluation, reviews: Mapping[Split, pa.Table]) -> str:
    sources = ", ".join(sorted({source for table in reviews.values() for source in _list_sources(table)}))
    violated = [f"- violated: {text}" for text in evaluation.violated_limits]
    weak = [f"- worse than the whole on: {part.name}" for part in evaluation.slices if part.below]
    return "\n".join(
        [
            *violated,
            *weak,
            f"- All reviews are from these sources: {sources}. Reviews of other places and times may differ.",
            "- Some labels are wrong: `reports/errors.md` lists candidates.",
            "- The intervals account for the sample of reviews, not for another training of the model.",
        ]
    )


def _describe_reproduction(model_params: ModelParams) -> str:
    directions = "bidirectional" if model_params.bidirectional else "unidirectional"
    ngrams = "no n-grams" if model_params.ngrams is None else f"{model_params.ngrams.order}-grams"
    architecture = (
        f"{directions} LSTM, {model_params.layers} x {model_params.hidden_units} units, "
        f"{model_params.max_tokens} tokens, {ngrams}"
    )
    return (
        f"Architecture: {architecture}. At the commit that contains this page, run `make setup` and "
        "`dvc repro`. `params.yaml` holds every parameter, `dvc.lock` the digests of data, code and model."
    )


def _list_sources(reviews: pa.Table) -> list[str]:
    return sorted(reviews["source"].unique().to_pylist())


def _format_difference(comparison: Comparison) -> str:
    interval = comparison.interval
    return f"{comparison.difference:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
