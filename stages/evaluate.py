"""Select the model with the higher validation AUC and evaluate both; only this stage opens the test split."""

import logging

from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import exits_cleanly
from sentiment.evaluation import compute_test_gain, evaluate_model, plot_curves, select_model, write_curves
from sentiment.files import write_json
from sentiment.lineage import find_or_adopt_run
from sentiment.model.model_files import CONFIG_FILE, WEIGHTS_FILE, copy_model, load_model
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.tracking import BEST_VALIDATION_AUC, open_store
from sentiment.tracking.logged_model import log_model
from sentiment.tracking.run import flattened
from sentiment.tracking.run_inputs import evaluation_tags

logger = logging.getLogger(__name__)

READ = (
    paths.reviews("test"),
    paths.TOKENIZER,
    paths.tokens("validation"),
    *(
        paths.model(candidate) / name
        for candidate in paths.CANDIDATES
        for name in (WEIGHTS_FILE, CONFIG_FILE)
    ),
)
"""Files that the test metrics depend on, as dvc.yaml names them."""

TEST_GAIN = "test_gain_over_baseline"
"""Test AUC of the tuned model less that of the baseline, whichever is selected: key in the metrics file and
prefix of metrics in MLflow."""


@exits_cleanly
def main() -> None:
    """Write the selected model, both models' metrics and curves, and log them to the models' MLflow runs."""
    require_incoming_in_copy()
    params = load_params().evaluate
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
    copy_model(paths.model(selected), paths.SELECTED, paths.TOKENIZER)

    store = open_store()
    tags = evaluation_tags(READ, params.model_dump())
    for candidate, stage in paths.CANDIDATES.items():
        evaluation = evaluations[candidate]
        scores = (test.labels, evaluation.test_probabilities, params.threshold)
        write_curves(paths.PLOTS / "evaluate" / candidate, *scores)
        run = find_or_adopt_run(store, paths.model(candidate), stage)
        run.log_metrics(
            {BEST_VALIDATION_AUC: evaluation.validation["auc"], **evaluation.scalar_test_metrics()}
        )
        run.log_figures(plot_curves(*scores, name=candidate), folder="evaluate")
        if candidate == "tuned":
            run.log_metrics(flattened({TEST_GAIN: gain.to_dict()}))
        run.tag({"selected": str(candidate == selected).lower()})
        run.retag("evaluate.", tags)
        if candidate == selected:
            log_model(run, paths.SELECTED)
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
