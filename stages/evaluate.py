"""Measure the models, select one of them, and write its model card.

This is the only stage that reads the holdout split and the test split.
"""

import logging

import torch

from sentiment import paths
from sentiment.data.parquet import read_reviews_with_origin
from sentiment.data.seen_texts import fingerprint_seen_texts
from sentiment.environment import require_locked_packages
from sentiment.errors import exits_cleanly
from sentiment.evaluation.error_analysis import write_errors_report
from sentiment.evaluation.evaluated_model import encode_groups
from sentiment.evaluation.evaluator import evaluate
from sentiment.evaluation.plots import plot_models, write_plot_tables
from sentiment.evaluation.report import render_model_card
from sentiment.evaluation.slices import tabulate_slices
from sentiment.evaluation.tracking import log_evaluation
from sentiment.files import write_json, write_text
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE, load_config
from sentiment.model.model_files import export_model
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer

logger = logging.getLogger(__name__)

TOKENIZED_SPLITS: tuple[paths.Split, ...] = ("validation", "holdout")
"""Evaluated splits that tokenize has encoded; only this stage reads the test split."""

EVALUATION_INPUTS = (
    *(paths.reviews(split) for split in (*paths.LABELLED_SPLITS, "unlabelled")),
    paths.TOKENIZER,
    *(paths.tokens(split) for split in TOKENIZED_SPLITS),
    *(
        paths.model(candidate) / name
        for candidate in paths.CANDIDATES
        for name in (WEIGHTS_FILE, CONFIG_FILE)
    ),
)
"""Files that the results depend on, with the same paths as in dvc.yaml."""


@exits_cleanly
def main() -> None:
    """Write the selected model, metrics, model card, errors and plots; log them to the MLflow runs."""
    require_locked_packages("evaluate")
    require_incoming_in_copy()
    all_params = load_params()
    params = all_params.evaluate
    torch.set_num_threads(all_params.train.threads)
    tokenizer = load_tokenizer(paths.TOKENIZER)
    reviews = {split: read_reviews_with_origin(paths.reviews(split)) for split in paths.LABELLED_SPLITS}
    tokens = {split: TokenizedReviews.open(paths.tokens(split)) for split in TOKENIZED_SPLITS}
    tokens["test"] = encode(tokenizer, reviews["test"], "tokenize test")
    candidates = {candidate: paths.model(candidate) for candidate in paths.CANDIDATES}

    evaluation, reference = evaluate(candidates, reviews, tokens, tokenizer, params)
    for line in evaluation.describe():
        logger.info(line)

    out_of_fold = reference.predict_out_of_fold(encode_groups(reviews["train"]["group"].to_pandas()))
    selected, labels = evaluation.selected_model, reviews["test"]["label"].to_numpy()
    slices, seen_texts = tabulate_slices(evaluation.slices), fingerprint_seen_texts()
    card = render_model_card(evaluation, reviews, load_config(candidates[evaluation.selected]).model, params)
    export_model(
        candidates[evaluation.selected],
        paths.SELECTED,
        paths.TOKENIZER,
        calibration=selected.calibration,
        seen_texts=seen_texts,
    )
    write_plot_tables(paths.PLOTS / "evaluate", list(evaluation.models.values()), labels, slices)
    write_text(paths.MODEL_CARD, card)
    write_errors_report(
        paths.ERRORS,
        reviews["validation"],
        selected.probabilities("validation"),
        selected.calibration.threshold,
        reviews["train"],
        out_of_fold,
    )
    log_evaluation(
        evaluation,
        tokens,
        seen_texts,
        params,
        inputs=EVALUATION_INPUTS,
        card=card,
        plots=plot_models(list(evaluation.models.values()), labels, slices),
    )
    write_json(paths.metrics("evaluate"), {**evaluation.to_dict(), "test_tokens": tokens["test"].describe()})


if __name__ == "__main__":
    main()
