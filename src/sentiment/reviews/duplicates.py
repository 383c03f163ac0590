"""Which of several equal reviews stays, and what becomes of those whose labels contradict each other."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentiment.paths import Split
from sentiment.reviews.keys import duplicate_key

STRONGEST_FIRST: tuple[Split, ...] = ("test", "validation", "train", "unlabelled")
"""Of equal reviews the one in the first of these splits stays, and of those in one split the first."""

DIGEST_BYTES = 16
DIGEST = np.dtype((np.void, DIGEST_BYTES))


@dataclass(frozen=True)
class Duplicates:
    """What was decided, each array of shape (reviews,).

    kept: which reviews stay. conflicting: which labelled reviews have an equal text with the other label.
    """

    kept: NDArray[np.bool_]
    conflicting: NDArray[np.bool_]


def text_digests(texts: Sequence[str]) -> NDArray[np.void]:
    """Return a 128-bit digest per text, shape (texts,), equal for texts with one key."""
    keys = (duplicate_key(text).encode() for text in texts)
    digests = b"".join(hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest() for key in keys)
    return np.frombuffer(digests, dtype=DIGEST)


def find_duplicates(
    digests: NDArray[np.void], splits: NDArray[np.uint8], labels: NDArray[np.int8]
) -> Duplicates:
    """Decide which reviews stay.

    The test split stays whole, duplicates and contradictions within it included: nothing that arrives
    elsewhere changes what is evaluated. Outside test nothing stays of a text that stands there, or in test,
    with both labels: which of them is right, nobody knows, and the order of the rows does not either.

    Args:
        digests: Shape (reviews,), of `text_digests`.
        splits: Shape (reviews,), positions in STRONGEST_FIRST.
        labels: Shape (reviews,), 0 or 1; anything else is no label.
    """
    kept = np.ones(len(splits), dtype=bool)
    conflicting = np.zeros(len(splits), dtype=bool)
    halves = digests.view(np.uint64).reshape(-1, 2)
    rows = _sharing(halves[:, 0])  # all of them would need three times the memory
    if len(rows):
        order = rows[np.lexsort((splits[rows], halves[rows, 1], halves[rows, 0]))]  # stable: first row first
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        text = np.cumsum(is_first) - 1
        starts = np.flatnonzero(is_first)
        has_both = np.logical_and(
            *(np.logical_or.reduceat(labels[order] == label, starts) for label in (0, 1))
        )[text]
        conflicting[order] = has_both & np.isin(labels[order], (0, 1))
        kept[order] = is_first & ~has_both
    kept |= splits == STRONGEST_FIRST.index("test")
    return Duplicates(kept, conflicting)


def _sharing(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the positions, in order, of the values that stand elsewhere too."""
    order = np.argsort(values)
    ordered = values[order]
    equals_next = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(values), dtype=bool)
    shared[order[1:][equals_next]] = True
    shared[order[:-1][equals_next]] = True
    return np.flatnonzero(shared)
