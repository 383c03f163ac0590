"""Peak memory of training on all labelled reviews."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.processes import in_fresh_process, peak_memory
from bench.training.own import train_logged
from bench.training.task import Changes, open_task
from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer

EPOCHS = 2
"""From the second epoch on, the best weights are in memory too: a third epoch takes no more."""


def measure_memory(changes: Changes) -> tuple[int, float]:
    """Return the number of training reviews, and the peak memory in MB of a process that trains only.

    The model is discarded, so its training may read the test split.
    """
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        count = in_fresh_process(_tokenize, Path(folder), changes.reviews)
        return count, in_fresh_process(_train, Path(folder), changes)


def _tokenize(folder: Path, reviews: int | None) -> int:
    texts = pa.concat_tables(read_reviews(paths.reviews(split)) for split in paths.LABELLED_SPLITS)
    drawn = np.random.default_rng(0).permutation(len(texts))[:reviews]
    tokenized = encode(load_tokenizer(paths.TOKENIZER), texts.take(drawn))
    tokenized.save(folder / "all")
    return len(tokenized)


def _train(folder: Path, changes: Changes) -> float:
    task = open_task(changes)
    task = task.with_epochs(min(EPOCHS, task.params.train.epochs))
    train_logged(
        replace(task, reviews=replace(task.reviews, train=TokenizedReviews.open(folder / "all"))), folder
    )
    return peak_memory()
