"""Which of several equal reviews stays."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentiment.paths import Split

STRONGEST_FIRST: tuple[Split, ...] = ("test", "validation", "train", "unlabelled")
"""Of equal reviews the one in the first of these splits stays, and of those in one split the first."""

DIGEST_BYTES = 16


def text_digests(texts: Sequence[str]) -> NDArray[np.void]:
    """Return a 128-bit digest per text, shape (texts,): equal for equal texts alone, for all one can tell."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for text in texts)
    return np.frombuffer(digests, dtype=np.dtype((np.void, DIGEST_BYTES)))


def kept_rows(digests: NDArray[np.void], splits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which reviews stay, shape (reviews,).

    digests: shape (reviews,). splits: shape (reviews,), positions in STRONGEST_FIRST. The test split stays
    whole, repeats within it included: nothing that arrives elsewhere, and no repeat, changes what is judged.
    """
    halves = digests.view(np.uint64).reshape(-1, 2)
    order = np.lexsort(
        (splits, halves[:, 1], halves[:, 0])
    )  # stable: of equal keys the first row comes first
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    kept = np.zeros(len(order), dtype=bool)
    kept[order] = is_first
    kept |= splits == STRONGEST_FIRST.index("test")
    return kept
