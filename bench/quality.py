"""The LSTM beside linear models, on the review archive's own halves, split by film.

All learn from the train half and are evaluated on the test half. Linear models need no validation split, so
they learn from it too; the LSTM chooses its epoch by it. The LSTM is trained with `params.yaml` from several
seeds, on labelled reviews only and, by self-training, on unlabelled ones too.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from bench.bars import Bar, report_bars
from bench.linear_models import MODELS
from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.data.parquet import read_reviews
from sentiment.errors import exits_cleanly
from sentiment.intervals import Interval, compute_delong_interval
from sentiment.model.classifier import predict_logits
from sentiment.params import Params, load_params
from sentiment.params.data import DownloadParams
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import train_tokenizer
from sentiment.training.self_training import fit_with_self_training

logger = logging.getLogger(__name__)


SEEDS = 5
AUC_BAR = 0.972
MINUTES_BAR = 10

SEEDS_UNLABELLED = 1
"""A training takes four times as long: there are three times as many unlabelled reviews as labelled ones."""
AUC_BAR_UNLABELLED = 0.976
MINUTES_BAR_UNLABELLED = 40


@dataclass(frozen=True)
class Evaluated:
    """One trained model: seconds of training, and its AUC on both splits."""

    seconds: float
    validation: float | None
    """None if the model also learned from that split."""
    test: float
    interval: Interval

    @classmethod
    def on(
        cls, labels: ArrayLike, scores: ArrayLike, seconds: float, validation: float | None
    ) -> "Evaluated":
        """Evaluate scores of the test split."""
        labels, scores = np.asarray(labels), np.asarray(scores)
        auc = float(roc_auc_score(labels, scores))
        return cls(seconds, validation, auc, compute_delong_interval(labels, scores))


@exits_cleanly
def main(archive: Path, seeds: int, seeds_unlabelled: int) -> None:
    """Train all, print a table of models and one of bars; exit with 1 if a bar is missed.

    seeds: trainings on labelled reviews only. seeds_unlabelled: trainings on the unlabelled ones too.
    """
    params = load_params()
    reviews = _reviews(params, archive.resolve())
    evaluated = {name: _evaluate_linear(name, reviews) for name in MODELS}
    tokenizer = train_tokenizer(reviews["train"]["text"].to_pylist(), params.tokenize)
    tokens = {split: encode(tokenizer, table, f"tokenize {split}") for split, table in reviews.items()}
    test = tokens.pop("test")
    learning = TrainingData(tokenizer.get_vocab_size(), **tokens)
    lstm = _evaluate_lstm(params, "ignore", learning, test, seeds)
    evaluated |= {f"LSTM with n-grams, seed {seed}": model for seed, model in lstm.items()}
    student = _evaluate_lstm(params, "self_training", learning, test, seeds_unlabelled)
    evaluated |= {f"the same, self-training, seed {seed}": model for seed, model in student.items()}
    print("| model | training, s | validation AUC | test AUC | confidence interval (DeLong) |")
    print("| --- | --- | --- | --- | --- |")
    for name, model in evaluated.items():
        validation = "" if model.validation is None else f"{model.validation:.4f}"
        interval = f"{model.interval.low:.4f} to {model.interval.high:.4f}"
        print(f"| {name} | {model.seconds:.0f} | {validation} | {model.test:.4f} | {interval} |")
    bars = _bars("labelled reviews only", list(lstm.values()), AUC_BAR, MINUTES_BAR)
    bars += _bars(
        "unlabelled reviews too", list(student.values()), AUC_BAR_UNLABELLED, MINUTES_BAR_UNLABELLED
    )
    raise SystemExit(report_bars(bars))


def _bars(learned_from: str, models: Sequence[Evaluated], auc_bar: float, minutes_bar: float) -> list[Bar]:
    if not models:
        return []
    aucs = [model.test for model in models]
    mean, minutes = statistics.mean(aucs), max(model.seconds for model in models) / 60
    value = f"{mean:.4f} ({min(aucs):.4f} to {max(aucs):.4f}; seeds: {len(aucs)})"
    return [
        Bar(f"LSTM, {learned_from}: mean test AUC", value, f"≥ {auc_bar}", mean >= auc_bar),
        Bar("its longest training, minutes", f"{minutes:.1f}", f"≤ {minutes_bar}", minutes <= minutes_bar),
    ]


def _reviews(params: Params, archive: Path) -> dict[paths.Split, pa.Table]:
    """Return the archive's splits as the download stage writes them.

    The holdout split, which is not needed here, is added to the training split.
    """
    source = {"kind": "imdb", "urls": [str(archive)], "checksum": None}
    download = DownloadParams.model_validate({**params.download.model_dump(), "sources": [source]})
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="bench-quality-") as folder:
        os.chdir(folder)
        try:
            build_splits(download)
            train, validation, holdout, test = (
                read_reviews(paths.reviews(split)) for split in paths.LABELLED_SPLITS
            )
            return {
                "train": pa.concat_tables([train, holdout]),
                "validation": validation,
                "test": test,
                "unlabelled": read_reviews(paths.reviews("unlabelled"), labelled=False),
            }
        finally:
            os.chdir(here)


def _evaluate_linear(name: str, reviews: dict[paths.Split, pa.Table]) -> Evaluated:
    logger.info(name)
    known = pa.concat_tables([reviews[split] for split in paths.LEARNING_SPLITS])
    start = time.perf_counter()
    model = MODELS[name]().fit(known["text"].to_pylist(), known["label"].to_numpy())
    seconds = time.perf_counter() - start
    test = reviews["test"]
    scores = model.decision_function(test["text"].to_pylist())
    return Evaluated.on(test["label"].to_numpy(), scores, seconds, validation=None)


def _evaluate_lstm(
    params: Params,
    unlabelled: Literal["ignore", "self_training"],
    learning: TrainingData,
    test: TokenizedReviews,
    seeds: int,
) -> dict[int, Evaluated]:
    """Train from each seed, with the unlabelled reviews used as `train.unlabelled` sets."""
    return {
        seed: _evaluate_training(
            params.model,
            params.train.model_copy(update={"seed": seed, "unlabelled": unlabelled}),
            learning,
            test,
        )
        for seed in range(1, seeds + 1)
    }


def _evaluate_training(
    model: ModelParams, train: TrainParams, learning: TrainingData, test: TokenizedReviews
) -> Evaluated:
    start = time.perf_counter()
    fitted = fit_with_self_training(
        model,
        train,
        learning,
        on_epoch=lambda epoch: logger.info(str(epoch)),
        description=f"seed {train.seed}",
    )
    seconds = time.perf_counter() - start
    scores = predict_logits(fitted.model, test, f"seed {train.seed}, test")
    return Evaluated.on(test.labels, scores, seconds, fitted.best.validation_auc)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="the review archive, or one in its layout")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of the LSTM")
    parser.add_argument(
        "--seeds-unlabelled",
        type=int,
        default=SEEDS_UNLABELLED,
        help="trainings on the unlabelled reviews too",
    )
    arguments = parser.parse_args()
    main(arguments.archive, arguments.seeds, arguments.seeds_unlabelled)
