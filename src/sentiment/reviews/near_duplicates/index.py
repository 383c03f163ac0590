"""MinHash signatures of reviews, and an index that finds the reviews whose signatures are alike.

Of two reviews each slot of the signatures is equal with a probability of their Jaccard similarity. So the
slots are grouped in bands, and reviews that agree in all slots of some band are candidates: locality-
sensitive hashing (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3). rensa computes the
signatures. Its own index takes 2.7 kB a review, four times what this one does.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from sentiment.reviews.near_duplicates.shingles import hashed_shingles

SLOTS = 96
"""Numbers in a signature. The estimate of the similarity is off by 0.05, one standard deviation."""
SEED = 42
RECALL = 0.98
"""Least probability that a pair just as alike as asked for becomes a candidate."""
MARGIN = 0.15
"""A candidate may be estimated so much below the similarity asked for: three standard deviations."""
SIGNED_TOGETHER = 256
"""Reviews whose words stay in the processor's cache."""
MOST_PAIRS = 100_000
"""Candidates held at a time, with their signatures 77 MB."""

_ODD = np.uint64(0x9E3779B97F4A7C15)


def signatures_of(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the signatures of texts in UTF-8, shape (texts, SLOTS); without words, all slots at the most."""
    parts = [np.empty((0, SLOTS), np.uint32)]
    for start in range(0, len(texts), SIGNED_TOGETHER):
        hashes, offsets = hashed_shingles(texts[start : start + SIGNED_TOGETHER])
        signed = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), SLOTS, SEED)
        parts.append(np.array(signed.to_rows(), np.uint32).reshape(-1, SLOTS))
    return np.concatenate(parts)


class SignatureIndex:
    """Finds indexed reviews that are probably like others. Holds some 0.7 kB of a review."""

    def __init__(self, signatures: NDArray[np.uint32], similarity: float) -> None:
        """Index signatures, shape (reviews, SLOTS), for pairs of at least this Jaccard similarity."""
        self._signatures = signatures
        self._similarity = similarity
        self._rows_in_band = _rows_in_band(similarity)
        self._retired = np.zeros(len(signatures), bool)
        self._retired_since = 0
        keys = self._band_keys(signatures)
        self._positions = [np.argsort(of_band, kind="stable").astype(np.uint32) for of_band in keys]
        self._keys = [of_band[positions] for of_band, positions in zip(keys, self._positions, strict=True)]

    def candidates(self, queries: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
        """Yield pairs of a query and an indexed review, shape (pairs, 2), estimated to be alike enough.

        In the order of the queries, and each pair once. What is retired between two yields is left out after.
        """
        waiting = [(0, len(queries))]
        while waiting:
            start, end = waiting.pop()
            keys = self._band_keys(queries[start:end])
            spans = [
                _equal_spans(of_index, of_band) for of_index, of_band in zip(self._keys, keys, strict=True)
            ]
            if end - start > 1 and sum(int(counts.sum()) for _, _, counts in spans) > MOST_PAIRS:
                half = (start + end) // 2
                waiting += [(half, end), (start, half)]
                continue
            pairs = [
                np.column_stack([np.repeat(hits, counts), positions[_ranges(first, counts)]])
                for positions, (hits, first, counts) in zip(self._positions, spans, strict=True)
            ]
            found = np.concatenate(pairs).astype(np.int64)
            codes = np.unique((found[:, 0] + start) * len(self._signatures) + found[:, 1])
            yield self._alike(np.column_stack(np.divmod(codes, max(1, len(self._signatures)))), queries)

    def retire(self, reviews: NDArray[np.int64]) -> None:
        """Leave these indexed reviews out of all later candidates."""
        self._retired_since += int((~self._retired[reviews]).sum())
        self._retired[reviews] = True
        if self._retired_since > len(self._retired) // 100:  # seldom, as it copies the index
            self._retired_since = 0
            stays = [~self._retired[positions] for positions in self._positions]
            self._keys = [keys[mask] for keys, mask in zip(self._keys, stays, strict=True)]
            self._positions = [rows[mask] for rows, mask in zip(self._positions, stays, strict=True)]

    def _alike(self, pairs: NDArray[np.int64], queries: NDArray[np.uint32]) -> NDArray[np.int64]:
        pairs = pairs[~self._retired[pairs[:, 1]]]
        estimates = (queries[pairs[:, 0]] == self._signatures[pairs[:, 1]]).mean(axis=1)
        alike: NDArray[np.int64] = pairs[estimates >= self._similarity - MARGIN]
        return alike

    def _band_keys(self, signatures: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return a number per band and review, shape (bands, reviews), equal where all its slots are."""
        bands = SLOTS // self._rows_in_band
        slots = signatures[:, : bands * self._rows_in_band].T.reshape(bands, self._rows_in_band, -1)
        keys = np.zeros((bands, len(signatures)), np.uint64)
        for row in range(self._rows_in_band):
            keys = (keys ^ slots[:, row]) * _ODD
            keys ^= keys >> np.uint64(32)
        return keys.astype(np.uint32)


def _rows_in_band(similarity: float) -> int:
    """Return the most slots per band with which pairs of this similarity are found, by RECALL."""
    enough = [rows for rows in range(1, SLOTS + 1) if 1 - (1 - similarity**rows) ** (SLOTS // rows) >= RECALL]
    return max(enough, default=1)


def _equal_spans(
    ordered: NDArray[np.uint32], keys: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return which keys stand in an ordered array, where the first of each stands there, and how many."""
    order = np.argsort(keys)  # searching in order reads the array in order, so from the processor's cache
    first = np.searchsorted(ordered, keys[order])
    hits = np.flatnonzero(ordered.take(first, mode="clip") == keys[order]) if len(ordered) else first[:0]
    counts = np.searchsorted(ordered, keys[order[hits]], side="right") - first[hits]
    return order[hits], first[hits], counts


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return first, first + 1, ... of each, `counts` of them, after one another."""
    ends = np.cumsum(counts)
    return np.repeat(first - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
