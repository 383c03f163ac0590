"""The interface of the peers, so that one loop measures all of them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.token_store import TokenizedReviews

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
"""The default of Adam in PyTorch and in Keras."""


class Peer(Protocol):
    """A model and its training."""

    def train(self, rows: NDArray[np.int64]) -> None:
        """Train on these rows of the training split once, in order, with batches of BATCH_SIZE."""

    def score(self, reviews: TokenizedReviews) -> NDArray[np.floating]:
        """Return a score per review, shape (reviews,): higher means more positive, on any monotone scale."""


def batches_of(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split rows into batches of BATCH_SIZE; the last one may be smaller."""
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
