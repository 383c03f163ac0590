"""Time of the stage evaluate: its scoring beside bare forward passes, and the whole stage.

Needs the outputs of the last `dvc repro`. The stage runs in a copy of the repository with its own store.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.bars import Bar, report_bars, spread
from bench.processes import seconds_of
from bench.small import copy_repository, inherited
from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import UserError, exits_cleanly
from sentiment.model.classifier import (
    INFERENCE_BATCH_SIZE,
    ModelInputs,
    SentimentClassifier,
    build_inputs,
    predict_logits,
)
from sentiment.model.model_files import load_model
from sentiment.params import load_params
from sentiment.tokens.batches import Truncation, iter_sorted_batches
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer

TURNS = 5
RATIO_BAR, SECONDS_BAR = 1.3, 120.0


@exits_cleanly
def main() -> None:
    """Measure, print a table; exit with 1 if a bar is missed."""
    torch.set_num_threads(load_params().train.threads)
    model = load_model(paths.model("baseline"))
    test = encode(load_tokenizer(paths.TOKENIZER), read_reviews(paths.reviews("test")), "tokenize test")
    batches = _build_batches(model, test)
    turns = []
    for _ in range(TURNS + 1):
        bare = seconds_of(_run_bare_passes, model, batches)
        turns.append(seconds_of(predict_logits, model, test, None) / bare)
    ratios = turns[1:]  # the first turn warms up
    median = sorted(ratios)[TURNS // 2]
    scoring = f"scoring {len(test):,} test reviews, times the bare forward passes"
    seconds = _run_stage()
    bars = [
        Bar(scoring, spread(ratios), f"≤ {RATIO_BAR:g}", median <= RATIO_BAR),
        Bar("the whole stage, s", f"{seconds:.0f}", f"≤ {SECONDS_BAR:g}", seconds <= SECONDS_BAR),
    ]
    raise SystemExit(report_bars(bars))


def _build_batches(model: SentimentClassifier, reviews: TokenizedReviews) -> list[ModelInputs]:
    """Build the batches that `predict_logits` builds, so that only the forward passes remain."""
    truncation = Truncation(model.params.max_tokens, model.params.truncation)
    ngrams = model.extract_ngrams(reviews)
    batches = iter_sorted_batches(reviews, truncation, INFERENCE_BATCH_SIZE, ngrams)
    return [build_inputs(batch, model.device) for batch in batches]


def _run_bare_passes(model: SentimentClassifier, batches: list[ModelInputs]) -> None:
    with torch.inference_mode():
        for inputs in batches:
            model(*inputs)


def _run_stage() -> float:
    """Run the stage in a copy of the repository; return the seconds from start to exit.

    Raises:
        UserError: the stage fails.
    """
    with tempfile.TemporaryDirectory(prefix="bench-evaluate-") as temporary:
        root = Path(temporary)
        copy_repository(root, {})
        for folder in (paths.REVIEWS, paths.TOKENS, paths.MODELS):
            shutil.copytree(folder, root / folder, dirs_exist_ok=True)
        environment = {**inherited(), "PYTHONPATH": os.fspath(root / "src")}
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, "-m", "stages.evaluate"],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError(f"stages.evaluate failed:\n{process.stderr}")
    return seconds


if __name__ == "__main__":
    main()
