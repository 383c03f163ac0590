"""N-gram features: the n-grams that enough training reviews contain, and their occurrence in reviews."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, and close to 2**64 divided by the golden ratio: multiplicative hashing, Knuth, volume 3, 6.4."""

HASH_SHIFT = np.uint64(29)
"""Moves the well-mixed high bits of the product down, so that the next token changes all of them."""

BUILD_BLOCK = 5_000
"""Reviews per block while the vocabulary is built: about 25 MB of hashes."""

EXTRACT_BLOCK = 1_000
"""Reviews per block while n-grams are extracted: about 30 MB."""

PREFIX_BITS = 18
PREFIX_SHIFT = np.uint64(64 - PREFIX_BITS)
"""Keys are indexed by the first bits of their hash: a table of 2 MB, with two or three keys per prefix."""

Number = TypeVar("Number", np.int64, np.uint64)


@dataclass(frozen=True)
class ReviewNGrams:
    """N-grams of reviews that are in the vocabulary, as a sparse binary matrix."""

    indices: NDArray[np.int32]
    """Vocabulary indices of all reviews, concatenated, each once per review, shape (n-grams,). 32-bit, since
    there are hundreds per review."""
    offsets: NDArray[np.int64]
    """Start of each review in `indices`, and the end of the last one, shape (reviews + 1,)."""

    def take(self, rows: NDArray[np.int64]) -> "ReviewNGrams":
        """Return the n-grams of some reviews, in the order of `rows`."""
        selected = [self.indices[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        lengths = np.array([0, *map(len, selected)], dtype=np.int64)
        indices = np.concatenate(selected) if selected else np.empty(0, np.int32)
        return ReviewNGrams(indices, np.cumsum(lengths))


@dataclass(frozen=True)
class NGramVocabulary:
    """N-grams of 1 to `order` tokens, identified by a 64-bit hash of their token ids.

    Among ten million n-grams, the probability of any hash collision is three in a million.
    """

    order: int
    keys: NDArray[np.uint64]
    """Hashes in ascending order, shape (n-grams,)."""

    @classmethod
    def build(cls, reviews: TokenizedReviews, order: int, min_reviews: int) -> Self:
        """Collect the n-grams, without out-of-vocabulary tokens, that enough reviews contain.

        Args:
            reviews: the training reviews.
            order: length of the longest n-grams, in tokens.
            min_reviews: minimum number of reviews that contain an n-gram (document frequency).
        """
        keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        for start in range(0, len(reviews), BUILD_BLOCK):
            rows = range(start, min(start + BUILD_BLOCK, len(reviews)))
            hashes = np.concatenate([hash_ngrams(reviews[row], order) for row in rows])
            block_keys, block_counts = np.unique(hashes, return_counts=True)
            merged, position = np.unique(np.concatenate([keys, block_keys]), return_inverse=True)
            total = np.bincount(position, np.concatenate([counts, block_counts])).astype(np.int64)
            keys, counts = merged, total
        return cls(order, keys[counts >= min_reviews])

    def __len__(self) -> int:
        return len(self.keys)

    def extract(self, reviews: TokenizedReviews) -> ReviewNGrams:
        """Return the n-grams of each review that are in the vocabulary, in ascending order."""
        starts = np.searchsorted(self.keys, np.arange(2**PREFIX_BITS, dtype=np.uint64) << PREFIX_SHIFT)
        starts = np.append(starts, len(self))
        indices, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for start in range(0, len(reviews), EXTRACT_BLOCK):
            offsets = reviews.offsets[start : start + EXTRACT_BLOCK + 1]
            found, found_counts = self._extract_block(reviews.ids[offsets[0] : offsets[-1]], offsets, starts)
            indices.append(found)
            counts.append(found_counts)
        return ReviewNGrams(np.concatenate(indices), np.cumsum(np.concatenate(counts)))

    def _extract_block(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Extract the n-grams of a block of reviews.

        The reviews are processed together: one at a time, most of the time is the overhead of NumPy calls.

        Args:
            ids: token ids of the reviews, concatenated, shape (tokens,).
            offsets: start of each review, and the end of the last one, shape (reviews + 1,); the first offset
                need not be 0.
            starts: as in `_find_keys`.

        Returns:
            Vocabulary indices of all reviews, concatenated, ascending within a review; and their number per
            review, shape (reviews,).
        """
        reviews = len(offsets) - 1
        review_of_token = np.repeat(np.arange(reviews), np.diff(offsets))
        found = [np.empty(0, np.int64)]
        for hashes, first_tokens in _hash_by_length(ids, review_of_token, self.order):
            matches, positions = self._find_keys(hashes, starts)
            found.append(review_of_token[first_tokens[matches]] * len(self) + positions)
        if not len(self):
            return np.empty(0, np.int32), np.zeros(reviews, np.int64)
        review, indices = np.divmod(_sorted_unique(np.concatenate(found)), len(self))
        return indices.astype(np.int32), np.bincount(review, minlength=reviews)

    def _find_keys(
        self, hashes: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Look hashes up among the keys.

        Keys are uniformly distributed, so each prefix has few, which are compared one after another. A binary
        search would take twenty random memory accesses per hash.

        Args:
            hashes: shape (n-grams,).
            starts: position of the first key of each prefix, and the number of keys, shape
                (2 ** PREFIX_BITS + 1,).

        Returns:
            Indices of the hashes that are keys, and the positions of those keys.
        """
        prefixes = (hashes >> PREFIX_SHIFT).astype(np.int64)
        position, end = starts[prefixes], starts[prefixes + 1]
        remaining = np.flatnonzero(position < end)
        matches, positions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while len(remaining):
            candidates = position[remaining]
            is_match = self.keys[candidates] == hashes[remaining]
            matches.append(remaining[is_match])
            positions.append(candidates[is_match])
            remaining = remaining[~is_match]
            position[remaining] += 1
            remaining = remaining[position[remaining] < end[remaining]]
        return np.concatenate(matches), np.concatenate(positions)


def hash_ngrams(ids: NDArray[np.int32], order: int) -> NDArray[np.uint64]:
    """Return the hashes of the n-grams of a review, each once, in ascending order.

    Args:
        ids: token ids, shape (tokens,). N-grams with an out-of-vocabulary token are left out, since that id
            stands for many different tokens.
        order: length of the longest n-grams, in tokens.
    """
    hashes = [hashes for hashes, _ in _hash_by_length(ids, np.zeros(len(ids), np.int64), order)]
    return _sorted_unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)


def _hash_by_length(
    ids: NDArray[np.int32], review_of_token: NDArray[np.int64], order: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Hash all n-grams of reviews, one n-gram length after another.

    Args:
        ids: token ids of one or more reviews, concatenated, shape (tokens,).
        review_of_token: index of the review of each token, ascending, shape (tokens,).
        order: length of the longest n-grams, in tokens.

    Yields:
        Hashes of the n-grams of one length, and the position of their first tokens. N-grams that span two
        reviews or have an out-of-vocabulary token are left out.
    """
    tokens, in_vocabulary = ids.astype(np.uint64), ids > UNKNOWN_ID
    hashes, is_valid = np.zeros_like(tokens), np.ones_like(in_vocabulary)
    for length in range(1, min(order, len(tokens)) + 1):
        count = len(tokens) - length + 1
        last = slice(length - 1, None)
        hashes = (hashes[:count] + tokens[last] + np.uint64(length)) * HASH_MULTIPLIER
        hashes ^= hashes >> HASH_SHIFT
        is_valid = is_valid[:count] & in_vocabulary[last] & (review_of_token[:count] == review_of_token[last])
        yield hashes[is_valid], is_valid.nonzero()[0]


def _sorted_unique(values: NDArray[Number]) -> NDArray[Number]:
    """Return the distinct values in ascending order.

    For integers this is many times as fast as `np.unique`, which hashes them.
    """
    ordered = np.sort(values)
    is_first = np.concatenate([np.ones(min(1, len(values)), bool), ordered[1:] != ordered[:-1]])
    unique: NDArray[Number] = ordered[is_first]
    return unique
