"""Batches of reviews of like length, so that little of a batch is padding."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, load_tokenizer


@dataclass(frozen=True)
class LearningReviews:
    """What may teach a model or choose one; the test split is no part of it.

    vocabulary_size: entries of the vocabulary that all token ids are from.
    """

    vocabulary_size: int
    train: TokenizedReviews
    validation: TokenizedReviews
    unlabelled: TokenizedReviews = field(default_factory=lambda: TokenizedReviews.from_lists([], []))
    """Read where `train.unlabelled` says so; may be empty."""

    @classmethod
    def open(cls) -> Self:
        """Map what the stage tokenize wrote. Raises UserError where a file is missing, torn or empty."""
        train, validation = (TokenizedReviews.open(paths.tokens(split)) for split in paths.LEARNING_SPLITS)
        unlabelled = TokenizedReviews.open(paths.tokens("unlabelled"), labelled=False)
        return cls(load_tokenizer(paths.TOKENIZER).get_vocab_size(), train, validation, unlabelled)

    def used(self, *, unlabelled: bool) -> dict[paths.Split, TokenizedReviews]:
        """Return by name the splits that a training reads; unlabelled: whether it reads that one too."""
        splits: dict[paths.Split, TokenizedReviews] = {"train": self.train, "validation": self.validation}
        return {**splits, "unlabelled": self.unlabelled} if unlabelled else splits


BUCKET_BATCHES = 50
"""Batches sorted by length together: enough for little padding, few enough to keep batches mixed."""


@dataclass(frozen=True)
class Batch:
    """Padded reviews.

    rows: shape (reviews,), where each stands in the split. ids: shape (reviews, longest), padded at the end.
    lengths: shape (reviews,). labels: shape (reviews,), from 0.0 to 1.0. ngrams: of these reviews, uncut;
    None where nobody reads them.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.float32]
    ngrams: ReviewNGrams | None = None

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class Cut:
    """How a long review is shortened."""

    max_tokens: int
    truncation: Literal["head", "tail", "both"]

    def __call__(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return at most `max_tokens` of a review's ids."""
        excess = len(ids) - self.max_tokens
        if excess <= 0:
            return ids
        if self.truncation == "head":
            return ids[: self.max_tokens]
        if self.truncation == "tail":
            return ids[excess:]
        head = (self.max_tokens + 1) // 2
        return np.concatenate([ids[:head], ids[head + excess :]])


def shuffled_batches(
    reviews: TokenizedReviews,
    cut: Cut,
    batch_size: int,
    rng: np.random.Generator,
    ngrams: ReviewNGrams | None = None,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield every review once, in a random order that keeps like lengths together.

    ngrams: of the reviews, where the batches shall hold them.
    Reviews are shuffled, sorted by length within buckets of BUCKET_BATCHES batches, and the batches shuffled.
    first: batch to start with, from 0; those before it are passed over.
    """
    order = rng.permutation(len(reviews))
    lengths = np.minimum(reviews.lengths, cut.max_tokens)
    buckets = np.split(order, range(batch_size * BUCKET_BATCHES, len(order), batch_size * BUCKET_BATCHES))
    by_length = np.concatenate([bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in buckets])
    batches = _slices(by_length, batch_size)
    for position in rng.permutation(len(batches))[first:]:
        yield _collate(reviews, cut, batches[position], ngrams)


def ordered_batches(
    reviews: TokenizedReviews, cut: Cut, batch_size: int, ngrams: ReviewNGrams | None = None
) -> Iterator[Batch]:
    """Yield every review once, shortest first: for scoring, where order plays no part."""
    by_length = np.argsort(reviews.lengths, kind="stable")
    for rows in _slices(by_length, batch_size):
        yield _collate(reviews, cut, rows, ngrams)


def prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches, each put together by a thread while the one before it is in use.

    For a GPU, which would wait meanwhile; on a CPU the thread would take time from the step.
    """
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _slices(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _collate(
    reviews: TokenizedReviews, cut: Cut, rows: NDArray[np.int64], ngrams: ReviewNGrams | None
) -> Batch:
    kept = [cut(reviews[row]) for row in rows]
    lengths = np.array([len(ids) for ids in kept], dtype=np.int64)
    padded = np.full((len(rows), max(1, int(lengths.max()))), PADDING_ID, dtype=np.int64)
    for line, ids in zip(padded, kept, strict=True):
        line[: len(ids)] = ids
    labels = reviews.labels[rows].astype(np.float32)
    return Batch(rows, padded, lengths, labels, None if ngrams is None else ngrams.take(rows))
