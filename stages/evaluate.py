"""Evaluate both models and select the one with the higher validation AUC.

This is the only stage that reads the test split.
"""

import logging

import torch

from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import exits_cleanly
from sentiment.evaluation.metrics import compute_test_gain, evaluate_model, select_model
from sentiment.evaluation.plots import plot_curves, write_curves
from sentiment.files import write_json
from sentiment.lineage import find_or_create_model_run
from sentiment.model.model_files import CONFIG_FILE, WEIGHTS_FILE, export_model, load_model
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.tracking import ModelResult, dataset_name, open_store
from sentiment.tracking.logged_model import log_model, tag_logged_model
from sentiment.tracking.provenance import collect_evaluation_tags
from sentiment.tracking.ui import flatten

logger = logging.getLogger(__name__)

EVALUATION_INPUTS = (
    paths.reviews("test"),
    paths.TOKENIZER,
    paths.tokens("validation"),
    *(
        paths.model(candidate) / name
        for candidate in paths.CANDIDATES
        for name in (WEIGHTS_FILE, CONFIG_FILE)
    ),
)
"""Files that the test metrics depend on, with the same paths as in dvc.yaml."""

TEST_GAIN = "test_gain_over_baseline"
"""Key in the metrics file, and prefix of the metrics in MLflow: test AUC of the tuned model minus that of the
baseline, regardless of which model is selected."""


@exits_cleanly
def main() -> None:
    """Write the selected model, and the metrics and curves of both models; log them to their MLflow runs."""
    require_incoming_in_copy()
    all_params = load_params()
    params = all_params.evaluate
    torch.set_num_threads(all_params.train.threads)
    validation = TokenizedReviews.open(paths.tokens("validation"))
    test = encode(load_tokenizer(paths.TOKENIZER), read_reviews(paths.reviews("test")), "tokenize test")
    evaluations = {
        candidate: evaluate_model(candidate, load_model(paths.model(candidate)), validation, test, params)
        for candidate in paths.CANDIDATES
    }
    selected = select_model(
        {candidate: evaluation.validation["auc"] for candidate, evaluation in evaluations.items()}
    )
    for candidate, evaluation in evaluations.items():
        logger.info(f"{candidate}: {evaluation}{', selected' if candidate == selected else ''}")
    gain = compute_test_gain(evaluations["tuned"], evaluations["baseline"], test.labels, params)
    logger.info(f"gain of tuned over baseline on test: AUC {gain}")
    export_model(paths.model(selected), paths.SELECTED, paths.TOKENIZER)

    store = open_store()
    evaluation_params = {name: str(value) for name, value in params.model_dump().items()}
    evaluation_tags = {**collect_evaluation_tags(EVALUATION_INPUTS), **evaluation_params}
    for candidate, stage in paths.CANDIDATES.items():
        evaluation = evaluations[candidate]
        curve_inputs = (test.labels, evaluation.test_probabilities, 0.5)
        write_curves(paths.PLOTS / "evaluate" / candidate, *curve_inputs)
        run = find_or_create_model_run(store, paths.model(candidate), stage)
        run.log_data("test", test, paths.reviews("test"), stage="download")
        model_id = log_model(run, candidate, paths.model(candidate), paths.TOKENIZER)
        on_validation = ModelResult(model_id, dataset_name("validation"), validation.digest)
        on_test = ModelResult(model_id, dataset_name("test"), test.digest)
        run.log_metrics(evaluation.scalar_metrics("validation"), result=on_validation)
        run.log_metrics(evaluation.scalar_metrics("test"), result=on_test)
        run.log_figures(plot_curves(*curve_inputs, name=candidate), folder="evaluate")
        if candidate == "tuned":
            run.log_metrics(flatten({TEST_GAIN: gain.to_dict()}), result=on_test)
        tags = {"selected": str(candidate == selected).lower()}
        run.tag(tags)
        tag_logged_model(run, model_id, tags)
        run.replace_tags("evaluate.", evaluation_tags)
    write_json(
        paths.metrics("evaluate"),
        {
            "selected": selected,
            **evaluations[selected].metrics_by_split(),
            "models": {name: evaluation.metrics_by_split() for name, evaluation in evaluations.items()},
            TEST_GAIN: gain.to_dict(),
            "test_tokens": test.describe(),
        },
    )


if __name__ == "__main__":
    main()
