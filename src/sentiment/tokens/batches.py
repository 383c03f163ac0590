"""The splits that training reads, and padded batches of reviews with similar lengths."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, load_tokenizer


@dataclass(frozen=True)
class TrainingData:
    """The tokenized splits that train and tune read. Holdout and test are not among them."""

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
        """Return the splits that a training run reads, keyed by name.

        Args:
            unlabelled: True if the run reads the unlabelled split.
        """
        splits: dict[paths.Split, TokenizedReviews] = {"train": self.train, "validation": self.validation}
        return {**splits, "unlabelled": self.unlabelled} if unlabelled else splits

    def select_for_cluster(self, *, unlabelled: bool) -> Self:
        """Return the splits that a training run reads, in arrays that Ray shares between the tasks of a node.

        It would copy memory maps for each task.

        Args:
            unlabelled: True if the run reads the unlabelled split, which is empty otherwise.
        """
        return replace(
            self,
            train=self.train.to_plain_arrays(),
            validation=self.validation.to_plain_arrays(),
            unlabelled=self.unlabelled.to_plain_arrays()
            if unlabelled
            else TokenizedReviews.from_lists([], []),
        )


BUCKET_BATCHES = 50
"""Number of batches per bucket, within which reviews are sorted by length. More batches per bucket mean less
padding, fewer mean more random batches."""


@dataclass(frozen=True)
class Batch:
    """A batch of reviews, padded to the length of the longest one."""

    rows: NDArray[np.int64]
    """Index of each review in its split, shape (reviews,)."""
    ids: NDArray[np.int64]
    """Token ids, padded at the end, shape (reviews, tokens of the longest review)."""
    lengths: NDArray[np.int64]
    """Number of tokens in each review, shape (reviews,)."""
    labels: NDArray[np.float32]
    """Labels, shape (reviews,): 0 is negative, 1 positive; pseudo-labels are probabilities in between."""
    ngrams: ReviewNGrams | None = None
    """N-grams of the reviews before truncation; None if the model has no n-gram branch."""
    shard: "Shard | None" = None
    """Which part of a larger batch this batch is; None if it is a whole batch."""

    @property
    def tokens(self) -> int:
        """Total number of tokens, without padding."""
        return int(self.lengths.sum())

    @property
    def whole(self) -> "Batch":
        """The batch that this batch is a part of, or this batch itself."""
        return self.shard.whole if self.shard else self

    @property
    def weight(self) -> float:
        """Weight of this batch's mean loss in the mean loss of the whole batch."""
        return self.shard.weight if self.shard else 1.0

    def take(self, start: int, stop: int) -> "Batch":
        """Return consecutive reviews of this batch as a batch, padded to the longest of them.

        If there are none, the batch is a single review of weight 0, since a model cannot read an empty batch.

        Args:
            start: position of the first review.
            stop: position after the last review.
        """
        weight = (stop - start) / len(self.labels)
        first = min(start, len(self.labels) - 1)
        taken = slice(first, max(stop, first + 1))
        lengths = self.lengths[taken]
        ids = np.ascontiguousarray(self.ids[taken, : max(1, int(lengths.max()))])
        ngrams = None if self.ngrams is None else self.ngrams.take(np.arange(taken.start, taken.stop))
        shard = Shard(self, first, weight)
        return Batch(self.rows[taken], ids, lengths, self.labels[taken], ngrams, shard)


@dataclass(frozen=True)
class Shard:
    """Position of a batch in the whole batch that it is a part of."""

    whole: Batch
    start: int
    """Position of the first review in the whole batch; the others follow it."""
    weight: float
    """Fraction of the whole batch's reviews; 0 if the part is empty and holds a review of another part."""


@dataclass(frozen=True)
class Truncation:
    """Truncates reviews to a maximum length."""

    max_tokens: int
    retained: Literal["head", "tail", "both"]
    """Part of the review that is retained: its start, its end, or half of `max_tokens` from each."""

    def __call__(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the token ids of a review, truncated to `max_tokens`."""
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
        reviews: reviews to batch.
        truncation: truncation of each review.
        batch_size: number of reviews per batch; the last batch may be smaller.
        rng: random number generator of both shuffles.
        ngrams: n-grams of the reviews, added to the batches; None if the model has no n-gram branch.
        start: index of the first batch to yield; used to resume within an epoch.
    """
    order = rng.permutation(len(reviews))
    lengths = np.minimum(reviews.lengths, truncation.max_tokens)
    buckets = np.split(order, range(batch_size * BUCKET_BATCHES, len(order), batch_size * BUCKET_BATCHES))
    sorted_rows = np.concatenate([bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in buckets])
    batches = _split_rows(sorted_rows, batch_size)
    for position in rng.permutation(len(batches))[start:]:
        yield _collate(reviews, truncation, batches[position], ngrams)


def iter_sorted_batches(
    reviews: TokenizedReviews,
    truncation: Truncation,
    batch_size: int,
    ngrams: ReviewNGrams | None = None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield every review once, shortest first. Meant for inference, where the order has no effect.

    Args:
        reviews: reviews to batch.
        truncation: truncation of each review.
        batch_size: number of reviews per batch; the last batch may be smaller.
        ngrams: n-grams of the reviews, added to the batches; None if the model has no n-gram branch.
        part: index of the first batch to yield, and the number of batches from one yielded batch to the next.
    """
    sorted_rows = np.argsort(reviews.lengths, kind="stable")
    first, step = part
    for rows in _split_rows(sorted_rows, batch_size)[first::step]:
        yield _collate(reviews, truncation, rows, ngrams)


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the given batches; a background thread builds the next one while the current one is in use.

    Meant for a GPU, which would otherwise wait for each batch. On a CPU, the thread would slow down the
    training step.
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
