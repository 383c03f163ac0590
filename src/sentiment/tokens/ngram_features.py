"""Which word n-grams a review contains, out of those that enough training reviews contain."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd and near 2**64 over the golden ratio: the multiplicative hashing of Knuth, volume 3, 6.4."""

SHIFT = np.uint64(29)
"""Brings the product's good high bits down, so that the next word changes all of them."""

BLOCK_REVIEWS = 5_000
"""Reviews whose n-grams are counted at once: some 25 MB of hashes."""

FOUND_REVIEWS = 1_000
"""Reviews whose n-grams are looked up at once: some 30 MB."""

PREFIX_BITS = 18
PREFIX_SHIFT = np.uint64(64 - PREFIX_BITS)
"""Of a hash; keys are found by their first bits. A table of 2 MB, with two or three keys a prefix."""

Number = TypeVar("Number", np.int64, np.uint64)


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
        starts = np.searchsorted(self.keys, np.arange(2**PREFIX_BITS, dtype=np.uint64) << PREFIX_SHIFT)
        starts = np.append(starts, len(self))
        indices, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for start in range(0, len(reviews), FOUND_REVIEWS):
            offsets = reviews.offsets[start : start + FOUND_REVIEWS + 1]
            found, found_counts = self._find_in_block(reviews.ids[offsets[0] : offsets[-1]], offsets, starts)
            indices.append(found)
            counts.append(found_counts)
        return ReviewNGrams(np.concatenate(indices), np.cumsum(np.concatenate(counts)))

    def _find_in_block(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the entries of some reviews in one array, each review's ascending, and how many each has.

        The reviews are looked up together: one by one, most of the time goes into calls of NumPy.
        """
        reviews = len(offsets) - 1
        of_word = np.repeat(np.arange(reviews), np.diff(offsets))
        met = [np.empty(0, np.int64)]
        for hashes, first in _hashed(ids, of_word, self.order):
            known, positions = self._positions(hashes, starts)
            met.append(of_word[first[known]] * len(self) + positions)
        if not len(self):
            return np.empty(0, np.int32), np.zeros(reviews, np.int64)
        of_review, indices = np.divmod(_distinct(np.concatenate(met)), len(self))
        return indices.astype(np.int32), np.bincount(of_review, minlength=reviews)

    def _positions(
        self, hashes: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which hashes are keys, as indices of `hashes`, and the position of each of those.

        starts: where the keys of each prefix begin. Keys are uniform, so that a prefix has few, tried one
        after another; a binary search would take twenty steps through memory for each hash.
        """
        prefixes = (hashes >> PREFIX_SHIFT).astype(np.int64)
        position, end = starts[prefixes], starts[prefixes + 1]
        left = np.flatnonzero(position < end)
        found, at = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while len(left):
            tried = position[left]
            hit = self.keys[tried] == hashes[left]
            found.append(left[hit])
            at.append(tried[hit])
            left = left[~hit]
            position[left] += 1
            left = left[position[left] < end[left]]
        return np.concatenate(found), np.concatenate(at)


def ngram_hashes(ids: NDArray[np.int32], order: int) -> NDArray[np.uint64]:
    """Return the hashes of a review's n-grams of one to `order` words, each once, ascending.

    ids: shape (words,). N-grams with an unknown word are left out: they are of many kinds.
    """
    found = [hashes for hashes, _ in _hashed(ids, np.zeros(len(ids), np.int64), order)]
    return _distinct(np.concatenate(found)) if found else np.empty(0, np.uint64)


def _hashed(
    ids: NDArray[np.int32], of_review: NDArray[np.int64], order: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield, for each length from one to `order`, the hashes of n-grams and where each begins.

    ids: shape (words,), of one or more reviews after one another. of_review: shape (words,), ascending. Left
    out are n-grams across two reviews and those with an unknown word.
    """
    words, known = ids.astype(np.uint64), ids > UNKNOWN_ID
    hashes, whole = np.zeros_like(words), np.ones_like(known)
    for length in range(1, min(order, len(words)) + 1):
        count = len(words) - length + 1
        last = slice(length - 1, None)
        hashes = (hashes[:count] + words[last] + np.uint64(length)) * MULTIPLIER
        hashes ^= hashes >> SHIFT
        whole = whole[:count] & known[last] & (of_review[:count] == of_review[last])
        yield hashes[whole], whole.nonzero()[0]


def _distinct(values: NDArray[Number]) -> NDArray[Number]:
    """Return each value once, ascending; of integers many times as fast as `np.unique`, which hashes them."""
    ordered = np.sort(values)
    is_first = np.concatenate([np.ones(min(1, len(values)), bool), ordered[1:] != ordered[:-1]])
    distinct: NDArray[Number] = ordered[is_first]
    return distinct


def _gathered(pieces: list[NDArray[np.int32]]) -> ReviewNGrams:
    lengths = np.array([0, *map(len, pieces)], dtype=np.int64)
    indices = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    return ReviewNGrams(indices, np.cumsum(lengths))
