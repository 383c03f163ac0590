"""N-gram features: a vocabulary of frequent n-grams, and the vocabulary n-grams that each review contains."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Factor of multiplicative hashing: odd and close to 2**64 / golden ratio (Knuth, volume 3, section 6.4)."""

HASH_SHIFT = np.uint64(29)
"""Number of bits by which a product is shifted right and XORed into itself: its well-mixed high bits then
affect the low bits, and through the next product all bits."""

BUILD_BLOCK = 5_000
"""Number of reviews per block when the vocabulary is built; the hashes of a block take about 25 MB."""

EXTRACT_BLOCK = 1_000
"""Number of reviews per block when n-grams are extracted; the arrays of a block take about 30 MB."""

PREFIX_BITS = 18
PREFIX_SHIFT = np.uint64(64 - PREFIX_BITS)
"""Keys are indexed by the first PREFIX_BITS bits of their hash. The table takes 2 MB; two or three keys
share each prefix."""

Number = TypeVar("Number", np.int64, np.uint64)


@dataclass(frozen=True)
class ReviewNGrams:
    """The vocabulary n-grams of each review, as a sparse binary matrix (CSR)."""

    indices: NDArray[np.int32]
    """Vocabulary indices of the n-grams of all reviews, concatenated, shape (n-grams,).
    They are distinct within a review. 32 bits save memory, since a review has hundreds of n-grams."""
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
    """A set of n-grams of 1 to `order` tokens, each identified by a 64-bit hash of its token ids.

    Among ten million n-grams, the probability of any hash collision is three in a million.
    """

    order: int
    keys: NDArray[np.uint64]
    """Hashes in ascending order, shape (n-grams,)."""

    @classmethod
    def build(cls, reviews: TokenizedReviews, order: int, min_reviews: int) -> Self:
        """Build the vocabulary of the n-grams that enough reviews contain.

        N-grams with out-of-vocabulary tokens are left out.

        Args:
            reviews: training reviews.
            order: length of the longest n-grams, in tokens.
            min_reviews: minimum number of reviews that contain an n-gram (document frequency).
        """
        keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        for start in range(0, len(reviews), BUILD_BLOCK):
            rows = range(start, min(start + BUILD_BLOCK, len(reviews)))
            hashes = np.concatenate([hash_ngrams(reviews[row], order) for row in rows])
            block_keys, block_counts = np.unique(hashes, return_counts=True)
            merged_keys, position = np.unique(np.concatenate([keys, block_keys]), return_inverse=True)
            merged_counts = np.bincount(position, np.concatenate([counts, block_counts])).astype(np.int64)
            keys, counts = merged_keys, merged_counts
        return cls(order, keys[counts >= min_reviews])

    def __len__(self) -> int:
        return len(self.keys)

    def extract(self, reviews: TokenizedReviews) -> ReviewNGrams:
        """Return the vocabulary n-grams of each review, in ascending order of their vocabulary index."""
        starts = np.searchsorted(self.keys, np.arange(2**PREFIX_BITS, dtype=np.uint64) << PREFIX_SHIFT)
        starts = np.append(starts, len(self))
        indices, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for start in range(0, len(reviews), EXTRACT_BLOCK):
            offsets = reviews.offsets[start : start + EXTRACT_BLOCK + 1]
            ids = reviews.ids[offsets[0] : offsets[-1]]
            block_indices, block_counts = self._extract_block(ids, offsets, starts)
            indices.append(block_indices)
            counts.append(block_counts)
        return ReviewNGrams(np.concatenate(indices), np.cumsum(np.concatenate(counts)))

    def _extract_block(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Extract the n-grams of a block of reviews.

        The reviews are processed together: one by one, most of the time would be the overhead of NumPy calls.

        Args:
            ids: token ids of the reviews, concatenated, shape (tokens,).
            offsets: start of each review, and the end of the last one, shape (reviews + 1,); the first offset
                need not be 0.
            starts: index of the keys by prefix, see `_find_keys`.

        Returns:
            Vocabulary indices of all reviews, concatenated and ascending within a review; and the number of
            indices of each review, shape (reviews,).
        """
        num_reviews = len(offsets) - 1
        review_of_token = np.repeat(np.arange(num_reviews), np.diff(offsets))
        pairs = [np.empty(0, np.int64)]  # each encodes a review and a vocabulary index in one integer
        for hashes, first_tokens in _iter_hashes_by_length(ids, review_of_token, self.order):
            matches, positions = self._find_keys(hashes, starts)
            pairs.append(review_of_token[first_tokens[matches]] * len(self) + positions)
        if not len(self):
            return np.empty(0, np.int32), np.zeros(num_reviews, np.int64)
        review, indices = np.divmod(_sorted_unique(np.concatenate(pairs)), len(self))
        return indices.astype(np.int32), np.bincount(review, minlength=num_reviews)

    def _find_keys(
        self, hashes: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the hashes that are in the vocabulary.

        Hashes are uniformly distributed, so few keys share a prefix; these are compared one after another. A
        binary search would take twenty random memory accesses per hash.

        Args:
            hashes: n-gram hashes, shape (n-grams,).
            starts: position of the first key of each prefix, followed by the number of keys, shape
                (2 ** PREFIX_BITS + 1,).

        Returns:
            Indices of the hashes that are in the vocabulary, and the position of each of these in `keys`.
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
    """Return the distinct hashes of the n-grams of a review, in ascending order.

    Args:
        ids: token ids of the review, shape (tokens,). N-grams with an out-of-vocabulary token are left out,
            since the id of that token stands for many different tokens.
        order: length of the longest n-grams, in tokens.
    """
    hashes = [hashes for hashes, _ in _iter_hashes_by_length(ids, np.zeros(len(ids), np.int64), order)]
    return _sorted_unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)


def _iter_hashes_by_length(
    ids: NDArray[np.int32], review_of_token: NDArray[np.int64], order: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Hash the n-grams of reviews: first those of one token, then those of two, up to `order`.

    Args:
        ids: token ids of one or more reviews, concatenated, shape (tokens,).
        review_of_token: index of the review of each token, ascending, shape (tokens,).
        order: length of the longest n-grams, in tokens.

    Yields:
        Hashes of the n-grams of one length, and the positions of their first tokens. N-grams that span two
        reviews or contain an out-of-vocabulary token are left out.
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

    For integers, this is many times faster than `np.unique`, which hashes them.
    """
    ordered = np.sort(values)
    is_first = np.concatenate([np.ones(min(1, len(values)), bool), ordered[1:] != ordered[:-1]])
    unique: NDArray[Number] = ordered[is_first]
    return unique
