"""Splits of a source whose films stand together but are not named."""

import numpy as np
import pyarrow as pa

from sentiment.errors import UserError
from sentiment.params.data import SplitShares
from sentiment.reviews.membership import SPLITS


def split_in_blocks(labels: pa.ChunkedArray, shares: SplitShares, seed: int) -> pa.Array:
    """Return the split of each review: one contiguous block per split within each label.

    labels: shape (reviews,), 0 or 1, in the source's order. The default source has no film ids, but a film's
    reviews stand together in it, and both labels list the films in the same order (rank correlation 0.999 in
    the archive, where ids can be compared). So each label is seen as a circle that starts at the same seeded
    share of its length and is cut at the same shares: a film is cut apart only where a block ends. Labels are
    balanced in each split as they are in the source.
    Raises UserError where a split would lack one label.
    """
    start = np.random.default_rng(seed).random()
    splits = np.empty(len(labels), dtype=object)
    known = labels.to_numpy()
    for label in (0, 1):
        rows = np.flatnonzero(known == label)
        circle = np.roll(rows, -int(start * len(rows)))
        ends = np.round(np.cumsum([shares.train, shares.validation, shares.test]) * len(rows)).astype(int)
        for split, block in zip(SPLITS, np.split(circle, ends[:-1]), strict=True):
            if not len(block):
                raise UserError(
                    f"reviews: no review with label {label} is left for the {split} split "
                    f"({len(rows)} in all); raise download.limit or the split's share"
                )
            splits[block] = split
    return pa.array(splits, pa.string())
