"""The rows of a build: on disk while it runs, with what decides in memory; and limits on all of them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.data.deduplication import DIGEST, SPLIT_PRECEDENCE, hash_texts
from sentiment.data.near_duplicates import NearDuplicates
from sentiment.data.parquet import ORIGIN_SCHEMA, release_freed_memory
from sentiment.data.validation import Quarantine, RowValidator
from sentiment.errors import UserError
from sentiment.params.data import NearDuplicateLimits, ReviewChecks
from sentiment.text import normalize_text

NO_LABEL = -1


@dataclass(frozen=True)
class RowTable:
    """What is kept in memory of every row, each array of shape (rows,): 6 bytes a review.

    splits: positions in SPLIT_PRECEDENCE. labels: 0, 1 or NO_LABEL. words: split at white space.
    """

    splits: NDArray[np.uint8]
    labels: NDArray[np.int8]
    words: NDArray[np.int32]

    def in_split(self, split: str) -> NDArray[np.bool_]:
        """Return which rows are in a split."""
        mask: NDArray[np.bool_] = self.splits == SPLIT_PRECEDENCE.index(split)
        return mask


class RowSpool:
    """Takes batches of `rows.SCHEMA`, normalizes and checks them, and keeps the fit ones in a file."""

    def __init__(
        self, writer: pa.RecordBatchStreamWriter, validator: RowValidator, quarantine: Quarantine
    ) -> None:
        self._writer = writer
        self._validator = validator
        self._quarantine = quarantine
        # Grown in place: arrays to be joined at the end would be there twice.
        self._digests, self._splits, self._labels, self._words = (bytearray() for _ in range(4))
        self.counts: dict[str, dict[str, int]] = defaultdict(lambda: {"rows": 0, "quarantined": 0})
        """Rows read and rows set aside, by source."""

    def append(self, batch: pa.RecordBatch, source: str) -> None:
        """Add a batch of reviews, each with its split."""
        texts = [normalize_text(text or "") for text in batch["text"].to_pylist()]
        labels = pd.array(batch["label"].to_pylist(), dtype="Int8")
        is_fit = np.ones(len(texts), dtype=bool)
        for fault in self._validator.find_invalid(
            pd.DataFrame({"text": pd.Series(texts, dtype="str"), "label": labels})
        ):
            is_fit[fault.position] = False
            row = batch["row"][fault.position].as_py()
            self._quarantine.add(source, row, fault.reason, texts[fault.position])
        self.counts[source]["rows"] += len(texts)
        self.counts[source]["quarantined"] += int((~is_fit).sum())
        self._keep(batch.set_column(0, "text", pa.array(texts, pa.string())).filter(pa.array(is_fit)), source)

    def rows(self) -> RowTable:
        """Return what is known of every fit row, in the order of the file; nothing can be added after."""
        return RowTable(
            np.frombuffer(self._splits, np.uint8),
            np.frombuffer(self._labels, np.int8),
            np.frombuffer(self._words, np.int32),
        )

    def digests(self) -> NDArray[np.void]:
        """Return the digest of every fit row's key, 16 bytes each; nothing can be added after."""
        return np.frombuffer(self._digests, DIGEST)

    def _keep(self, fit: pa.RecordBatch, source: str) -> None:
        texts = fit["text"].to_pylist()
        self._digests += hash_texts(texts).tobytes()
        self._splits += bytes(SPLIT_PRECEDENCE.index(split) for split in fit["split"].to_pylist())
        self._labels += fit["label"].fill_null(NO_LABEL).to_numpy(zero_copy_only=False).tobytes()
        self._words += np.array([len(text.split()) for text in texts], np.int32).tobytes()
        named = fit.append_column("source", pa.array([source] * len(texts), pa.string()))
        self._writer.write_batch(named.select(ORIGIN_SCHEMA.names))
        release_freed_memory()


@contextmanager
def open_spool(path: Path, validator: RowValidator, quarantine: Quarantine) -> Iterator[RowSpool]:
    """Open a spool for writing, an Arrow stream; its file is whole when this ends."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, ORIGIN_SCHEMA, options=options) as writer,
    ):
        yield RowSpool(writer, validator, quarantine)


def read_spool(path: Path, chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Yield some of what was spooled, in batches of columns ORIGIN_SCHEMA, each with its rows' positions.

    chosen: shape (rows,). Reads no further than the last of them.
    """
    left, start = int(chosen.sum()), 0
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        while left:
            batch = reader.read_next_batch()
            mask = chosen[start : start + batch.num_rows]
            positions = np.flatnonzero(mask) + start
            start += batch.num_rows
            left -= len(positions)
            if len(positions):
                yield positions, batch.filter(pa.array(mask))


def require_few_duplicates(share: float, names: Callable[[], Sequence[str]], checks: ReviewChecks) -> None:
    """Raise UserError that names some dropped rows, where their share is past the limit."""
    if share > checks.duplicates:
        what = (
            f"reviews: {share:.1%} are duplicates, more than download.checks.duplicates "
            f"({checks.duplicates:.1%}); for example:"
        )
        raise UserError("\n  ".join([what, *(f"{row}: its text stands elsewhere too" for row in names())]))


def require_few_near_duplicates(found: NearDuplicates, limits: NearDuplicateLimits) -> None:
    """Raise UserError that names the closest pairs, where too many test reviews have a near-duplicate."""
    if found.fraction > limits.max_share:
        what = (
            f"reviews: {found.fraction:.1%} of the test reviews have a near-duplicate in another split, more "
            f"than download.checks.near_duplicates.max_share ({limits.max_share:.1%}). Drop them from "
            "the other sources, or raise the limit; for example:"
        )
        raise UserError("\n  ".join([what, *map(str, found.closest)]))


def require_balanced_labels(rows: RowTable, kept: NDArray[np.bool_], checks: ReviewChecks) -> None:
    """Raise UserError where a labelled split lacks a label, or has too many of one."""
    for split in paths.LABELLED_SPLITS:
        labels = rows.labels[kept & rows.in_split(split)]
        found = np.unique(labels)
        if found.tolist() != [0, 1]:
            raise UserError(
                f"reviews: the {split} split has {len(labels)} review(s), with labels {found.tolist()}; "
                "it needs both 0 and 1. Add reviews, or change download.split"
            )
        share = float(labels.mean())
        if abs(share - 0.5) > checks.imbalance:
            raise UserError(
                f"reviews: {share:.1%} of the {split} split are positive, further from half than "
                f"download.checks.imbalance ({checks.imbalance:.1%}) allows"
            )
