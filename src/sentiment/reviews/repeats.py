"""Which of several equal reviews stays."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentiment.paths import Split

STRONGEST_FIRST: tuple[Split, ...] = ("test", "validation", "train", "unlabelled")
"""Of equal reviews the one in the first of these splits stays, and of those in one split the first."""

DIGEST_BYTES = 16
DIGEST = np.dtype((np.void, DIGEST_BYTES))


def text_digests(texts: Sequence[str]) -> NDArray[np.void]:
    """Return a 128-bit digest per text, shape (texts,): equal for equal texts alone, for all one can tell."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for text in texts)
    return np.frombuffer(digests, dtype=DIGEST)


def kept_rows(digests: NDArray[np.void], splits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which reviews stay, shape (reviews,).

    digests: shape (reviews,). splits: shape (reviews,), positions in STRONGEST_FIRST. The test split stays
    whole, repeats within it included: nothing that arrives elsewhere, and no repeat, changes what is judged.
    """
    halves = digests.view(np.uint64).reshape(-1, 2)
    rows = _sharing(halves[:, 0])  # all of them would need three times the memory
    order = rows[np.lexsort((splits[rows], halves[rows, 1], halves[rows, 0]))]  # stable: the first row first
    kept = np.ones(len(splits), dtype=bool)
    kept[order[1:]] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    kept |= splits == STRONGEST_FIRST.index("test")
    return kept


def _sharing(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the positions, in order, of the values that stand elsewhere too."""
    order = np.argsort(values)
    ordered = values[order]
    equals_next = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(values), dtype=bool)
    shared[order[1:][equals_next]] = True
    shared[order[:-1][equals_next]] = True
    return np.flatnonzero(shared)
