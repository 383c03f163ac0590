"""As many reviews as a measurement needs: sentences of real reviews in new company.

A made review has as many sentences as some real one, each drawn from the real reviews of its label. So words,
lengths and the growth of the vocabulary are about those of real text, and no two texts are the same.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentiment.data.imdb import load_package_reviews
from sentiment.data.parquet import FILE_SCHEMA as SCHEMA
from sentiment.data.parquet import open_reviews_writer
from sentiment.text import normalize_text

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

FEWEST_SENTENCES = 4
"""Drawn from more than 100,000: the odds that two reviews in a million are equal are 1 to 1e8."""

DRAWN_TOGETHER = 10_000
"""Reviews made at a time, about 13 MB; another number makes other reviews."""


def resampled_reviews(count: int, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield `count` reviews with columns text and label; equal arguments give equal reviews.

    Holds the sentences of the package's reviews (70 MB) and one batch.
    """
    sentences, first, counts = _real_sentences()
    rng = np.random.default_rng(seed)
    for start in range(0, count, DRAWN_TOGETHER):
        size = min(DRAWN_TOGETHER, count - start)
        labels = rng.integers(0, 2, size)
        lengths = np.maximum(rng.choice(counts, size), FEWEST_SENTENCES)
        of_each = np.repeat(labels, lengths)  # the label of each sentence's review
        drawn = sentences.take(pa.array(rng.integers(first[of_each], first[of_each + 1])))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), drawn), " ")
        yield pa.record_batch([texts, pa.array(labels, pa.int8())], schema=SCHEMA)


def write_resampled(path: Path, count: int, seed: int = 0) -> None:
    """Write resampled reviews as a Parquet file, a batch in memory at a time."""
    with open_reviews_writer(path) as writer:
        for batch in resampled_reviews(count, seed):
            writer.append(batch)


def _real_sentences() -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return the sentences by label, where each label's start and end, and each review's sentences."""
    reviews = load_package_reviews()
    by_label: dict[int, list[str]] = {0: [], 1: []}
    counts = []
    for text, label in zip(reviews["text"].to_pylist(), reviews["label"].to_pylist(), strict=True):
        sentences = SENTENCE_END.split(normalize_text(text))
        by_label[label] += sentences
        counts.append(len(sentences))
    first = np.cumsum([0, len(by_label[0]), len(by_label[1])])
    return pa.array(by_label[0] + by_label[1], pa.string()), first, np.array(counts)
