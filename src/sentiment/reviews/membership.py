"""Which split a review is in: by its source's own split or by a hash, never by where it stands among others.

So more reviews may join without one row of the test split changing.
"""

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa

from sentiment.params.data import SplitShares
from sentiment.reviews.keys import duplicate_key

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"


def hashed_share(key: str, seed: int) -> float:
    """Return a number from 0 up to 1 that depends on key and seed alone, uniform over keys."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_by_hash(
    batches: Iterable[pa.RecordBatch], shares: SplitShares, seed: int
) -> Iterator[pa.RecordBatch]:
    """Put each group in a split by its hash, a review without one by the hash of its text's key."""
    for batch in batches:
        keys = (
            duplicate_key(text or "") if group is None else group
            for text, group in zip(batch["text"].to_pylist(), batch["group"].to_pylist(), strict=True)
        )
        yield _with_split(batch, [_split_at(hashed_share(key, seed), shares) for key in keys])


def validation_from_train(
    batches: Iterable[pa.RecordBatch], shares: SplitShares, seed: int
) -> Iterator[pa.RecordBatch]:
    """Move groups of a source's own train half to validation, by hash; test and the unlabelled stay."""
    share = shares.validation / (shares.train + shares.validation)
    for batch in batches:
        splits = [
            "validation" if split == "train" and hashed_share(group, seed) < share else split
            for split, group in zip(batch["split"].to_pylist(), batch["group"].to_pylist(), strict=True)
        ]
        yield _with_split(batch, splits)


def all_to_train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put every labelled review in the training split."""
    for batch in batches:
        yield _with_split(
            batch, [UNLABELLED if split == UNLABELLED else "train" for split in batch["split"].to_pylist()]
        )


def _split_at(share: float, shares: SplitShares) -> str:
    if share < shares.test:
        return "test"
    return "validation" if share < shares.test + shares.validation else "train"


def _with_split(batch: pa.RecordBatch, splits: list[str]) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))
