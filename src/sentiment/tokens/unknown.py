"""Reviews that the vocabulary does not cover: another language, another encoding, another task."""

import heapq
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.reviews.storage import origins
from sentiment.tokens.vocabulary import UNKNOWN_ID

NAMED_REVIEWS = 10
"""Reviews that an error names."""


class UnknownWords:
    """Counts a split's unknown words as its batches pass, and remembers the reviews with most of them."""

    def __init__(self) -> None:
        self.tokens = self.unknown = 0
        self._reviews = 0
        self._worst: list[tuple[float, int]] = []

    def add(self, ids: NDArray[np.int32], lengths: NDArray[np.integer]) -> None:
        """Take the next reviews. ids: shape (tokens,), all after one another. lengths: shape (reviews,)."""
        before = np.concatenate([[0], np.cumsum(ids == UNKNOWN_ID)])
        ends = np.cumsum(lengths)
        of_review = before[ends] - before[ends - lengths]
        rates = of_review / np.maximum(lengths, 1)
        here = np.argsort(-rates, kind="stable")[:NAMED_REVIEWS]
        found = [(float(rates[position]), -(self._reviews + int(position))) for position in here]
        self._worst = heapq.nlargest(NAMED_REVIEWS, [*self._worst, *found])  # earlier rows first among equals
        self.tokens += len(ids)
        self.unknown += int(of_review.sum())
        self._reviews += len(lengths)

    def refuse_above(self, limit: float, path: Path) -> None:
        """Raise UserError that names the worst reviews of the split at `path`, where too many are unknown."""
        share = self.unknown / max(self.tokens, 1)
        if share <= limit:
            return
        worst = [(rate, -row) for rate, row in self._worst]
        names = origins(path, [row for _, row in worst])
        lines = [f"{name}: {rate:.1%} unknown" for (rate, _), name in zip(worst, names, strict=True)]
        what = (
            f"{path}: {share:.1%} of the words are unknown, more than tokenize.unknown_rate ({limit:.1%}); "
            "the vocabulary is learned on the training split. For example:"
        )
        raise UserError("\n  ".join([what, *lines]))
