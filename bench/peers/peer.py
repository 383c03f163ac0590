"""The interface of every peer, so that one loop measures them all."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.token_store import TokenizedReviews

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
"""Adam's usual one, in PyTorch and in Keras."""


class Peer(Protocol):
    """A model, and the usual way to train it."""

    def train(self, rows: NDArray[np.int64]) -> None:
        """Go once through these reviews of the training split, in this order, BATCH_SIZE to a step."""

    def score(self, reviews: TokenizedReviews) -> NDArray[np.floating]:
        """Return a score per review, shape (reviews,): higher means more positive, on any monotone scale."""


def batches_of(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut rows into batches of BATCH_SIZE; the last one may be smaller."""
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
