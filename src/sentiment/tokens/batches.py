"""The splits that training reads, and padded batches of reviews of similar length."""

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
class TrainingData:
    """The tokenized splits that training and model selection read; the test split is held out."""

    vocabulary_size: int
    """Number of token ids."""
    train: TokenizedReviews
    validation: TokenizedReviews
    unlabelled: TokenizedReviews = field(default_factory=lambda: TokenizedReviews.from_lists([], []))
    """Read only if `train.unlabelled` requests it; may be empty."""

    @classmethod
    def open(cls) -> Self:
        """Memory-map the outputs of the tokenize stage.

        Raises:
            UserError: a file is missing or corrupt, or a labelled split is empty or has only one class.
        """
        train, validation = (TokenizedReviews.open(paths.tokens(split)) for split in paths.LEARNING_SPLITS)
        unlabelled = TokenizedReviews.open(paths.tokens("unlabelled"), labelled=False)
        return cls(load_tokenizer(paths.TOKENIZER).get_vocab_size(), train, validation, unlabelled)

    def select_splits(self, *, unlabelled: bool) -> dict[paths.Split, TokenizedReviews]:
        """Return the splits that a training run reads, by name.

        Args:
            unlabelled: whether the run reads the unlabelled split.
        """
        splits: dict[paths.Split, TokenizedReviews] = {"train": self.train, "validation": self.validation}
        return {**splits, "unlabelled": self.unlabelled} if unlabelled else splits


BUCKET_BATCHES = 50
"""Batches per bucket that is sorted by length: enough for little padding, few enough for random batches."""


@dataclass(frozen=True)
class Batch:
    """Padded reviews."""

    rows: NDArray[np.int64]
    """Index of each review in its split, shape (reviews,)."""
    ids: NDArray[np.int64]
    """Token ids, padded at the end, shape (reviews, tokens of the longest)."""
    lengths: NDArray[np.int64]
    """Tokens of each review, shape (reviews,)."""
    labels: NDArray[np.float32]
    """Probability that the review is positive, 0.0 to 1.0, shape (reviews,)."""
    ngrams: ReviewNGrams | None = None
    """N-grams of the untruncated reviews; None if the model has no n-gram branch."""

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class Truncation:
    """Truncates reviews to a maximum length."""

    max_tokens: int
    retained: Literal["head", "tail", "both"]
    """End of the review that is retained; `both` retains the first and the last half of `max_tokens`."""

    def __call__(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return at most `max_tokens` of the token ids of a review."""
        excess = len(ids) - self.max_tokens
        if excess <= 0:
            return ids
        if self.retained == "head":
            return ids[: self.max_tokens]
        if self.retained == "tail":
            return ids[excess:]
        head = (self.max_tokens + 1) // 2
        return np.concatenate([ids[:head], ids[head + excess :]])


def iter_shuffled_batches(
    reviews: TokenizedReviews,
    truncation: Truncation,
    batch_size: int,
    rng: np.random.Generator,
    ngrams: ReviewNGrams | None = None,
    start: int = 0,
) -> Iterator[Batch]:
    """Yield every review once, in random batches of reviews of similar length (bucketing).

    Reviews are shuffled and sorted by length within buckets of BUCKET_BATCHES batches; then the batches are
    shuffled.

    Args:
        reviews: the reviews.
        truncation: applied to each review.
        batch_size: reviews per batch; the last batch may be smaller.
        rng: source of both shuffles.
        ngrams: n-grams of the reviews, added to the batches; None if the model has no n-gram branch.
        start: index of the first batch to yield; used to resume within an epoch.
    """
    order = rng.permutation(len(reviews))
    lengths = np.minimum(reviews.lengths, truncation.max_tokens)
    buckets = np.split(order, range(batch_size * BUCKET_BATCHES, len(order), batch_size * BUCKET_BATCHES))
    by_length = np.concatenate([bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in buckets])
    batches = _split_rows(by_length, batch_size)
    for position in rng.permutation(len(batches))[start:]:
        yield _collate(reviews, truncation, batches[position], ngrams)


def iter_sorted_batches(
    reviews: TokenizedReviews, truncation: Truncation, batch_size: int, ngrams: ReviewNGrams | None = None
) -> Iterator[Batch]:
    """Yield every review once, shortest first, for inference, where the order has no effect.

    Args:
        reviews: the reviews.
        truncation: applied to each review.
        batch_size: reviews per batch; the last batch may be smaller.
        ngrams: n-grams of the reviews, added to the batches; None if the model has no n-gram branch.
    """
    by_length = np.argsort(reviews.lengths, kind="stable")
    for rows in _split_rows(by_length, batch_size):
        yield _collate(reviews, truncation, rows, ngrams)


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches, each built by a thread while the previous one is in use.

    Meant for a GPU, which would be idle meanwhile; on a CPU the thread would take time from the training
    step.
    """
    with ThreadPoolExecutor(1, "batches") as executor:
        upcoming = executor.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = executor.submit(next, batches, None)
            yield batch


def _split_rows(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _collate(
    reviews: TokenizedReviews, truncation: Truncation, rows: NDArray[np.int64], ngrams: ReviewNGrams | None
) -> Batch:
    truncated = [truncation(reviews[row]) for row in rows]
    lengths = np.array([len(ids) for ids in truncated], dtype=np.int64)
    padded = np.full((len(rows), max(1, int(lengths.max()))), PADDING_ID, dtype=np.int64)
    for row, ids in zip(padded, truncated, strict=True):
        row[: len(ids)] = ids
    labels = reviews.labels[rows].astype(np.float32)
    return Batch(rows, padded, lengths, labels, None if ngrams is None else ngrams.take(rows))
