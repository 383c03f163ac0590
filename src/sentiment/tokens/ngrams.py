"""Which word n-grams a review contains, out of those that enough training reviews contain."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd and near 2**64 over the golden ratio: the multiplicative hashing of Knuth, volume 3, 6.4."""

SHIFT = np.uint64(29)
"""Brings the product's good high bits down, so that the next word changes all of them."""

BLOCK_REVIEWS = 5_000
"""Reviews whose n-grams are counted at once: some 25 MB of hashes."""


@dataclass(frozen=True)
class ReviewNGrams:
    """The known n-grams of some reviews.

    indices: shape (n-grams,), of entries of the vocabulary, all reviews after one another, each n-gram of a
    review once; in 32 bits, for there are hundreds a review. offsets: shape (reviews + 1,), where each review
    starts and the last one ends.
    """

    indices: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "ReviewNGrams":
        """Return those of some reviews, in the order of `rows`."""
        pieces = [self.indices[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return _gathered(pieces)


@dataclass(frozen=True)
class NGramVocabulary:
    """N-grams of one to `order` words, each known by a 64-bit hash of its token ids.

    keys: shape (n-grams,), the hashes in ascending order. Among ten million n-grams, the chance that any two
    share a hash is three in a million.
    """

    order: int
    keys: NDArray[np.uint64]

    @classmethod
    def learn(cls, reviews: TokenizedReviews, order: int, min_reviews: int) -> Self:
        """Take every n-gram without unknown words that at least `min_reviews` of the reviews contain."""
        keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        for start in range(0, len(reviews), BLOCK_REVIEWS):
            rows = range(start, min(start + BLOCK_REVIEWS, len(reviews)))
            block = np.concatenate([ngram_hashes(reviews[row], order) for row in rows])
            met, times = np.unique(block, return_counts=True)
            known, position = np.unique(np.concatenate([keys, met]), return_inverse=True)
            total = np.bincount(position, np.concatenate([counts, times])).astype(np.int64)
            keys, counts = known, total
        return cls(order, keys[counts >= min_reviews])

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, reviews: TokenizedReviews) -> ReviewNGrams:
        """Look up the n-grams of each review."""
        return _gathered([self._known(ngram_hashes(ids, self.order)) for ids in _each(reviews)])

    def _known(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        if not len(self.keys):
            return np.empty(0, np.int32)
        positions = np.searchsorted(self.keys, hashes).clip(max=len(self.keys) - 1)
        known: NDArray[np.int32] = positions[self.keys[positions] == hashes].astype(np.int32)
        return known


def ngram_hashes(ids: NDArray[np.int32], order: int) -> NDArray[np.uint64]:
    """Return the hashes of a review's n-grams of one to `order` words, each once, ascending.

    ids: shape (words,). N-grams with an unknown word are left out: they are of many kinds.
    """
    words, known = ids.astype(np.uint64), ids > UNKNOWN_ID
    hashes, whole = np.zeros_like(words), np.ones_like(known)
    found = []
    for length in range(1, order + 1):
        if length > len(words):
            break
        last = slice(length - 1, None)
        hashes = (hashes[: len(words) - length + 1] + words[last] + np.uint64(length)) * MULTIPLIER
        hashes ^= hashes >> SHIFT
        whole = whole[: len(words) - length + 1] & known[last]
        found.append(hashes[whole])
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def _each(reviews: TokenizedReviews) -> Iterator[NDArray[np.int32]]:
    return (reviews[row] for row in range(len(reviews)))


def _gathered(pieces: list[NDArray[np.int32]]) -> ReviewNGrams:
    lengths = np.array([0, *map(len, pieces)], dtype=np.int64)
    indices = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    return ReviewNGrams(indices, np.cumsum(lengths))
