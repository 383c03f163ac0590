"""Which split each review is in."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from sentiment.data.deduplication import compute_duplicate_key
from sentiment.errors import UserError
from sentiment.params.data import SplitFractions

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"


def hash_to_unit_interval(key: str, seed: int) -> float:
    """Return a number from 0 up to 1 that depends on key and seed alone, uniform over keys."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_by_hash(
    batches: Iterable[pa.RecordBatch], shares: SplitFractions, seed: int
) -> Iterator[pa.RecordBatch]:
    """Put each group in a split by its hash, a review without one by the hash of its text's key."""
    for batch in batches:
        keys = (
            compute_duplicate_key(text or "") if group is None else group
            for text, group in zip(batch["text"].to_pylist(), batch["group"].to_pylist(), strict=True)
        )
        yield _replace_split(batch, [_select_split(hash_to_unit_interval(key, seed), shares) for key in keys])


def split_validation_from_train(
    batches: Iterable[pa.RecordBatch], shares: SplitFractions, seed: int
) -> Iterator[pa.RecordBatch]:
    """Move groups of a source's own train half to validation, by hash; test and the unlabelled stay."""
    share = shares.validation / (shares.train + shares.validation)
    for batch in batches:
        splits = [
            "validation" if split == "train" and hash_to_unit_interval(group, seed) < share else split
            for split, group in zip(batch["split"].to_pylist(), batch["group"].to_pylist(), strict=True)
        ]
        yield _replace_split(batch, splits)


def assign_to_train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put every labelled review in the training split."""
    for batch in batches:
        yield _replace_split(
            batch, [UNLABELLED if split == UNLABELLED else "train" for split in batch["split"].to_pylist()]
        )


def _select_split(share: float, shares: SplitFractions) -> str:
    if share < shares.test:
        return "test"
    return "validation" if share < shares.test + shares.validation else "train"


def _replace_split(batch: pa.RecordBatch, splits: list[str]) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))


def split_in_blocks(labels: pa.ChunkedArray, shares: SplitFractions, seed: int) -> pa.Array:
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
