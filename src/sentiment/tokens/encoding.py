"""Tokenization of whole splits, one batch of reviews at a time."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.data.parquet import BATCH_ROWS, ReviewStream, read_origins
from sentiment.errors import UserError
from sentiment.logs import progress
from sentiment.shards.shard_map import IN_PROCESS, ShardMap
from sentiment.tokens.token_store import NO_LABEL, TokenizedReviews, open_token_writer
from sentiment.tokens.vocabulary import UNKNOWN_ID, TextEncoder, parse_tokenizer


@dataclass(frozen=True)
class EncodedBatch:
    """Token ids and labels of a batch of reviews."""

    ids: NDArray[np.int32]
    """Token ids of all reviews, concatenated, shape (tokens,)."""
    lengths: NDArray[np.int64]
    """Number of tokens in each review, shape (reviews,)."""
    labels: NDArray[np.int8]
    """Labels, shape (reviews,): 0, 1, or NO_LABEL for unlabelled reviews."""


EMPTY_BATCH = EncodedBatch(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int8))

BATCH_ARRAYS = ("ids", "lengths", "labels")
"""Arrays of an `EncodedBatch`, in the order of its fields."""

MAX_LISTED_REVIEWS = 10
"""Maximum number of reviews listed in the error about a high out-of-vocabulary rate."""


class ShardEncoder:
    """Tokenizes shards of reviews, in any process.

    Args:
        tokenizer: trained tokenizer, as JSON.
    """

    def __init__(self, tokenizer: str) -> None:
        self._encode_texts = TextEncoder(parse_tokenizer(tokenizer))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> EncodedBatch:
        """Tokenize batches with the columns `text` and `label`, one after the other."""
        encoded = [EMPTY_BATCH, *map(self._encode, batches)]
        return EncodedBatch(
            *(np.concatenate([getattr(batch, name) for batch in encoded]) for name in BATCH_ARRAYS)
        )

    def _encode(self, batch: pa.RecordBatch) -> EncodedBatch:
        token_ids = self._encode_texts(batch["text"].to_pylist())
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        ids = np.fromiter(chain.from_iterable(token_ids), np.int32, int(lengths.sum()))
        return EncodedBatch(ids, lengths, batch["label"].fill_null(NO_LABEL).to_numpy())


class OOVCounter:
    """Counts the out-of-vocabulary tokens of a split, and tracks the reviews with the highest rates."""

    def __init__(self) -> None:
        self.tokens = self.oov_tokens = 0
        self._reviews = 0
        self._worst_reviews: list[tuple[float, int]] = []  # out-of-vocabulary rate and negative row

    def update(self, ids: NDArray[np.int32], lengths: NDArray[np.integer]) -> None:
        """Count the tokens of the next batch.

        Args:
            ids: token ids of all reviews, concatenated, shape (tokens,).
            lengths: number of tokens in each review, shape (reviews,).
        """
        cumulative = np.concatenate([[0], np.cumsum(ids == UNKNOWN_ID)])
        end_offsets = np.cumsum(lengths)
        oov_counts = cumulative[end_offsets] - cumulative[end_offsets - lengths]
        rates = oov_counts / np.maximum(lengths, 1)
        worst = np.argsort(-rates, kind="stable")[:MAX_LISTED_REVIEWS]
        candidates = [(float(rates[position]), -(self._reviews + int(position))) for position in worst]
        # rows are negative so that ties are broken in favour of earlier rows
        self._worst_reviews = heapq.nlargest(MAX_LISTED_REVIEWS, [*self._worst_reviews, *candidates])
        self.tokens += len(ids)
        self.oov_tokens += int(oov_counts.sum())
        self._reviews += len(lengths)

    def require_at_most(self, max_rate: float, path: Path) -> None:
        """Check the out-of-vocabulary rate of the split.

        Args:
            max_rate: maximum fraction of out-of-vocabulary tokens.
            path: path of the split's Parquet file; the error message names it and lists some of its reviews.

        Raises:
            UserError: the rate is above the maximum.
        """
        rate = self.oov_tokens / max(self.tokens, 1)
        if rate <= max_rate:
            return
        worst = [(rate, -row) for rate, row in self._worst_reviews]
        names = read_origins(path, [row for _, row in worst])
        examples = [
            f"{name}: {rate:.1%} out of vocabulary" for (rate, _), name in zip(worst, names, strict=True)
        ]
        message = (
            f"{path}: {rate:.1%} of the tokens are out of vocabulary, more than tokenize.oov_rate "
            f"({max_rate:.1%}); the vocabulary is built from the training split. Examples:"
        )
        raise UserError("\n  ".join([message, *examples]))


def encode(tokenizer: Tokenizer, reviews: pa.Table, description: str = "tokenize") -> TokenizedReviews:
    """Tokenize a table of reviews into arrays in memory.

    Args:
        tokenizer: trained tokenizer.
        reviews: table with the columns `text` and `label`.
        description: label of the progress bar.
    """
    batches = _show_progress(reviews.to_batches(BATCH_ROWS), reviews.num_rows, description)
    encoded = [EMPTY_BATCH, *IN_PROCESS.map(ShardEncoder, tokenizer.to_str(), batches)]
    ids, lengths, labels = (
        np.concatenate([getattr(batch, name) for batch in encoded]) for name in BATCH_ARRAYS
    )
    return TokenizedReviews.from_arrays(ids, lengths, labels)


def encode_to_folder(
    folder: Path,
    tokenizer: Tokenizer,
    reviews: ReviewStream,
    description: str,
    shards: ShardMap = IN_PROCESS,
    oov_rate: float = 1.0,
) -> dict[str, Any]:
    """Tokenize a split and write its token arrays, with few batches in memory at a time.

    The arrays do not depend on the shards.

    Args:
        folder: output folder, which is written atomically.
        tokenizer: trained tokenizer.
        reviews: reviews of the split.
        description: label of the progress bar.
        shards: where the reviews are tokenized.
        oov_rate: maximum fraction of out-of-vocabulary tokens.

    Returns:
        Metrics of the split, in the form of `TokenizedReviews.describe`.

    Raises:
        UserError: the reviews cannot be read, or the out-of-vocabulary rate is above the maximum.
    """
    counter = OOVCounter()
    batches = _show_progress(reviews, reviews.num_rows, description)
    with open_token_writer(folder) as writer:
        for batch in shards.map(ShardEncoder, tokenizer.to_str(), batches):
            writer.append(batch.ids, batch.lengths, batch.labels)
            counter.update(batch.ids, batch.lengths)
        counter.require_at_most(oov_rate, reviews.path)
    return writer.describe()


def iter_texts(reviews: ReviewStream, description: str) -> Iterator[list[str]]:
    """Yield one list of texts per batch of reviews; a progress bar has the description as its label."""
    for batch in _show_progress(reviews, reviews.num_rows, description):
        yield batch["text"].to_pylist()


def _show_progress(
    batches: Iterable[pa.RecordBatch], total: int, description: str
) -> Iterator[pa.RecordBatch]:
    return progress(batches, total, description, size=lambda batch: int(batch.num_rows))
