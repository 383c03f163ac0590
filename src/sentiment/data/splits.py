"""Read the sources and assign each review to a split, independently of the other sources."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sentiment import paths
from sentiment.data.deduplication import compute_duplicate_key
from sentiment.data.download import fetch
from sentiment.data.imdb import load_package_reviews, read_imdb
from sentiment.data.incoming import read_incoming
from sentiment.data.parquet import SCHEMA, sample_reviews, to_batches
from sentiment.data.recorded_files import require_tracked_files
from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams, SplitFractions
from sentiment.params.sources import AnySource, FilesSource, ImdbSource, IncomingSource, PackageSource

UNLABELLED = "unlabelled"


BLOCKS: tuple[paths.Split, ...] = ("train", "holdout", "validation", "test")
"""Splits in the order of their blocks. Before there was a holdout split, the defaults in params.yaml were
chosen on the tenth of the reviews before test: in this order, most of the holdout split is outside of it."""


def read_source(source: AnySource, params: DownloadParams) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of a source in batches of `parquet.SCHEMA`, each review with its split.

    Raises:
        UserError: the source cannot be fetched or read.
    """
    match source:
        case PackageSource():
            batches = _split_package(params)
        case ImdbSource():
            path = fetch(source.urls, source.checksum)
            sample = sample_reviews(lambda: read_imdb(path, source.limits), params.limit, params.seed)
            batches = split_train_half(sample, params.split, params.seed)
        case IncomingSource():
            sample = sample_reviews(lambda: read_incoming(source, params.sources), params.limit, params.seed)
            batches = split_by_hash(sample, params.split, params.seed)
            batches = assign_to_train(batches) if source.role == "train" else batches
            return hold_out_recent(batches, params.recent, params.seed)
        case FilesSource():
            if any(paths.INCOMING in Path(path).parents for path in source.paths):
                require_tracked_files(paths.INCOMING)
            sample = sample_reviews(lambda: read_files(source), params.limit, params.seed)
            batches = split_by_hash(sample, params.split, params.seed)
    return assign_to_train(batches) if source.role == "train" else batches


def _split_package(params: DownloadParams) -> Iterator[pa.RecordBatch]:
    table = load_package_reviews()
    batches = sample_reviews(lambda: to_batches(table), params.limit, params.seed)
    sample = pa.Table.from_batches(batches, SCHEMA)
    splits = split_in_blocks(sample["label"], params.split, params.seed)
    yield from to_batches(sample.set_column(SCHEMA.get_field_index("split"), "split", splits))


def hash_to_unit_interval(key: str, seed: int, purpose: bytes = b"") -> float:
    """Hash a key and a seed to a number in [0, 1), uniformly distributed over keys.

    Numbers for different purposes, of up to 16 bytes, are independent of each other.
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_by_hash(
    batches: Iterable[pa.RecordBatch], fractions: SplitFractions, seed: int
) -> Iterator[pa.RecordBatch]:
    """Assign reviews to splits by the hash of the group, or of the duplicate key if they have no group."""
    for batch in batches:
        yield _replace_split(
            batch,
            [_select_split(hash_to_unit_interval(key, seed), fractions) for key in _iter_split_keys(batch)],
        )


def hold_out_recent(batches: Iterable[pa.RecordBatch], share: float, seed: int) -> Iterator[pa.RecordBatch]:
    """Move a share of the reviews in the training split to the split `recent`, by a hash of the same key.

    The hash is independent of the one that selects the split, so that the share is also one of the training
    split. Reviews of other splits do not move.
    """
    for batch in batches:
        rows = zip(batch["split"].to_pylist(), _iter_split_keys(batch), strict=True)
        yield _replace_split(
            batch,
            [
                "recent" if split == "train" and _hash_for_recent(key, seed) < share else split
                for split, key in rows
            ],
        )


def _hash_for_recent(key: str, seed: int) -> float:
    return hash_to_unit_interval(key, seed, b"recent")


def _iter_split_keys(batch: pa.RecordBatch) -> Iterator[str]:
    """Yield the group of each review, or its duplicate key if it has no group."""
    for text, group in zip(batch["text"].to_pylist(), batch["group"].to_pylist(), strict=True):
        yield compute_duplicate_key(text or "") if group is None else group


def split_train_half(
    batches: Iterable[pa.RecordBatch], fractions: SplitFractions, seed: int
) -> Iterator[pa.RecordBatch]:
    """Move groups of the predefined train split to holdout and validation by hash.

    The other predefined splits do not change. The fractions of train, validation and holdout are relative to
    their sum.
    """
    for batch in batches:
        rows = zip(batch["split"].to_pylist(), batch["group"].to_pylist(), strict=True)
        yield _replace_split(
            batch,
            [_split_group(group, fractions, seed) if split == "train" else split for split, group in rows],
        )


def _split_group(group: str, fractions: SplitFractions, seed: int) -> str:
    """Return the split of a group of the predefined train split: train, validation or holdout."""
    number = hash_to_unit_interval(group, seed)
    return _select_split(fractions.test + (1 - fractions.test) * number, fractions)


def assign_to_train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Assign every labelled review to the training split."""
    for batch in batches:
        yield _replace_split(
            batch, [UNLABELLED if split == UNLABELLED else "train" for split in batch["split"].to_pylist()]
        )


def _select_split(number: float, fractions: SplitFractions) -> str:
    """Return the split of a number in [0, 1). Test is first, so that it depends on its own fraction only."""
    if number < fractions.test:
        return "test"
    if number < fractions.test + fractions.validation:
        return "validation"
    return "holdout" if number < fractions.test + fractions.validation + fractions.holdout else "train"


def _replace_split(batch: pa.RecordBatch, splits: list[str]) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))


def split_in_blocks(labels: pa.ChunkedArray, fractions: SplitFractions, seed: int) -> pa.Array:
    """Split the reviews of each label in contiguous blocks, so that films are rarely in two splits.

    The package has no film ids, but the reviews of a film are adjacent, and both labels list the films in the
    same order (rank correlation 0.999 in the archive, where ids can be compared). So each label is treated as
    a ring that starts at the same seeded fraction of its length and is cut at the same fractions. A film is
    in two splits only where a block ends. The label balance of each split is that of the source.

    Args:
        labels: labels, 0 or 1, in the order of the source, shape (reviews,).
        fractions: size of each split.
        seed: seed of the position at which the ring starts.

    Returns:
        Split of each review, shape (reviews,).

    Raises:
        UserError: a split would have no review of a label.
    """
    start = np.random.default_rng(seed).random()
    splits = np.empty(len(labels), dtype=object)
    values = labels.to_numpy()
    for label in (0, 1):
        rows = np.flatnonzero(values == label)
        ring = np.roll(rows, -int(start * len(rows)))
        boundaries = np.cumsum([getattr(fractions, split) for split in BLOCKS])
        boundaries = np.round(boundaries * len(rows)).astype(int)
        for split, block in zip(BLOCKS, np.split(ring, boundaries[:-1]), strict=True):
            if not len(block):
                raise UserError(
                    f"reviews: {len(rows):,} reviews with label {label} are too few to assign any to the "
                    f"{split} split; increase download.limit or download.split.{split}"
                )
            splits[block] = split
    return pa.array(splits, pa.string())
