"""Which reviews teach, which choose, which judge."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.params.data import SplitShares
from sentiment.paths import Split

LABELS = (0, 1)


def limited(reviews: pa.Table, limit: int | None) -> pa.Table:
    """Return the first `limit` reviews, half of each label, in their order; all where limit is None."""
    if limit is None:
        return reviews
    rows = [_rows_of(reviews, label)[: limit // 2] for label in LABELS]
    return reviews.take(np.sort(np.concatenate(rows)))


def split_in_blocks(reviews: pa.Table, shares: SplitShares, seed: int) -> dict[Split, pa.Table]:
    """Cut each label's reviews into one contiguous block per split.

    The source has no film ids, but one film's reviews stand together in it, and both labels list the films
    in the same order (rank correlation 0.999 in the archive, where ids can be compared). So each label is
    seen as a circle that starts at the same seeded share of its length and is cut at the same shares: a film
    is then cut apart only where a block ends. Labels are balanced in each split as they are in the source.
    Raises UserError where a split would lack one label.
    """
    start = np.random.default_rng(seed).random()
    blocks: dict[Split, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for label in LABELS:
        rows = _rows_of(reviews, label)
        circle = np.roll(rows, -int(start * len(rows)))
        ends = np.round(np.cumsum([shares.train, shares.validation, shares.test]) * len(rows)).astype(int)
        for split, block in zip(blocks, np.split(circle, ends[:-1]), strict=True):
            if not len(block):
                raise UserError(
                    f"reviews: no review with label {label} is left for the {split} split "
                    f"({len(rows)} in all); raise download.limit or the split's share"
                )
            blocks[split].append(block)
    return {split: reviews.take(np.concatenate(parts)) for split, parts in blocks.items()}


def _rows_of(reviews: pa.Table, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(reviews["label"].to_numpy() == label)
