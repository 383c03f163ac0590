"""Pick the better model on validation; judge both on test. The only stage that opens the test split."""

import logging

from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import exits_cleanly
from sentiment.evaluation.metrics import figures, write_curves
from sentiment.evaluation.verdict import gain_on_test, judge, select
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
"""What the test metrics depend on, by the names that dvc.yaml has for it."""

TEST_GAIN = "test_gain_over_baseline"
"""Of the tuned model, whichever is selected; under one name in the metrics file and in its run."""


@exits_cleanly
def main() -> None:
    """Write the selected model and both models' figures and curves; add them to the models' runs."""
    require_incoming_in_copy()
    params = load_params().evaluate
    validation = TokenizedReviews.open(paths.tokens("validation"))
    test = encode(load_tokenizer(paths.TOKENIZER), read_reviews(paths.reviews("test")), "tokenize test")
    judged = {
        candidate: judge(candidate, load_model(paths.model(candidate)), validation, test, params)
        for candidate in paths.CANDIDATES
    }
    selected = select({candidate: judgement.validation["auc"] for candidate, judgement in judged.items()})
    for candidate, judgement in judged.items():
        logger.info(f"{candidate}: {judgement}{', selected' if candidate == selected else ''}")
    gain = gain_on_test(judged["tuned"], judged["baseline"], test.labels, params)
    logger.info(f"tuned over baseline on test: AUC {gain}")
    copy_model(paths.model(selected), paths.SELECTED, paths.TOKENIZER)

    store = open_store()
    evaluated_by = evaluation_tags(READ, params.model_dump())
    for candidate, stage in paths.CANDIDATES.items():
        judgement = judged[candidate]
        curves = (test.labels, judgement.test_probabilities, params.threshold)
        write_curves(paths.PLOTS / "evaluate" / candidate, *curves)
        run = find_or_adopt_run(store, paths.model(candidate), stage)
        run.log_metrics({BEST_VALIDATION_AUC: judgement.validation["auc"], **judgement.test_figures()})
        run.log_figures(figures(*curves, name=candidate), folder="evaluate")
        if candidate == "tuned":
            run.log_metrics(flattened({TEST_GAIN: gain.figures()}))
        run.tag({"selected": str(candidate == selected).lower()})
        run.retag("evaluate.", evaluated_by)
        if candidate == selected:
            log_model(run, paths.SELECTED)
    write_json(
        paths.metrics("evaluate"),
        {
            "selected": selected,
            **judged[selected].by_split(),
            "models": {candidate: judgement.by_split() for candidate, judgement in judged.items()},
            TEST_GAIN: gain.figures(),
            "test_tokens": test.describe(),
        },
    )


if __name__ == "__main__":
    main()
