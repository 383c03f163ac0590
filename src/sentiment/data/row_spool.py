"""Rows of all sources on their way to the splits: texts in a temporary file, the other columns in memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.data.deduplication import DIGEST, SPLIT_PRECEDENCE, hash_texts
from sentiment.data.parquet import ORIGIN_SCHEMA, release_freed_memory
from sentiment.data.removal import RemovalList
from sentiment.data.validation import Quarantine, RowValidator
from sentiment.text import normalize_text

NO_LABEL = -1


@dataclass(frozen=True)
class RowTable:
    """The columns of all rows that are held in memory, each of shape (rows,); 6 bytes per review.

    Attributes:
        splits: position of each review's split in SPLIT_PRECEDENCE.
        labels: label of each review: 0, 1 or NO_LABEL.
        words: number of words, separated by whitespace, of each review.
    """

    splits: NDArray[np.uint8]
    labels: NDArray[np.int8]
    words: NDArray[np.int32]

    def split_mask(self, split: str) -> NDArray[np.bool_]:
        """Return a mask of the rows in a split, shape (rows,)."""
        mask: NDArray[np.bool_] = self.splits == SPLIT_PRECEDENCE.index(split)
        return mask


@dataclass(frozen=True)
class RowCounts:
    """Numbers of rows.

    Attributes:
        sources: rows read (`rows`) and quarantined (`quarantined`), by source.
        removed: rows on the removal list by split; those in test are not dropped.
    """

    sources: dict[str, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: {"rows": 0, "quarantined": 0})
    )
    removed: Counter[str] = field(default_factory=Counter)


class RowSpool:
    """Normalizes and validates batches of `parquet.SCHEMA` and writes the valid rows to a temporary file.

    Reviews on the removal list are dropped first, whether or not they are valid, so that no output has their
    texts. Test reviews are not dropped.
    """

    def __init__(
        self,
        writer: pa.RecordBatchStreamWriter,
        validator: RowValidator,
        quarantine: Quarantine,
        removal_list: RemovalList,
    ) -> None:
        self._writer = writer
        self._validator = validator
        self._quarantine = quarantine
        self._removal_list = removal_list
        # Grown in place: concatenating arrays at the end would need twice the memory.
        self._digests, self._splits, self._labels, self._words = (bytearray() for _ in range(4))
        self.counts = RowCounts()

    def append(self, batch: pa.RecordBatch, source: str) -> None:
        """Normalize and validate a batch of reviews, which must have a split, and write the valid ones."""
        self.counts.sources[source]["rows"] += batch.num_rows
        texts = [normalize_text(text or "") for text in batch["text"].to_pylist()]
        is_listed = self._removal_list.contains(texts)
        if is_listed.any():
            splits = np.array(batch["split"].to_pylist())
            self.counts.removed.update(splits[is_listed].tolist())
            remaining = np.flatnonzero(~is_listed | (splits == "test"))
            batch, texts = batch.take(pa.array(remaining)), [texts[row] for row in remaining]
        labels = pd.array(batch["label"].to_pylist(), dtype="Int8")
        is_valid = np.ones(len(texts), dtype=bool)
        for invalid in self._validator.find_invalid(
            pd.DataFrame({"text": pd.Series(texts, dtype="str"), "label": labels})
        ):
            is_valid[invalid.position] = False
            row = batch["row"][invalid.position].as_py()
            self._quarantine.add(source, row, invalid.reason, texts[invalid.position])
        self.counts.sources[source]["quarantined"] += int((~is_valid).sum())
        normalized = batch.set_column(0, "text", pa.array(texts, pa.string()))
        self._append_valid(normalized.filter(pa.array(is_valid)), source)

    def rows(self) -> RowTable:
        """Return the columns of all valid rows, in the order of the file. No row can be added afterwards."""
        return RowTable(
            np.frombuffer(self._splits, np.uint8),
            np.frombuffer(self._labels, np.int8),
            np.frombuffer(self._words, np.int32),
        )

    def digests(self) -> NDArray[np.void]:
        """Return the `hash_texts` digests of all valid rows. No row can be added afterwards."""
        return np.frombuffer(self._digests, DIGEST)

    def _append_valid(self, batch: pa.RecordBatch, source: str) -> None:
        texts = batch["text"].to_pylist()
        self._digests += hash_texts(texts).tobytes()
        self._splits += bytes(SPLIT_PRECEDENCE.index(split) for split in batch["split"].to_pylist())
        self._labels += batch["label"].fill_null(NO_LABEL).to_numpy(zero_copy_only=False).tobytes()
        self._words += np.array([len(text.split()) for text in texts], np.int32).tobytes()
        with_source = batch.append_column("source", pa.array([source] * len(texts), pa.string()))
        self._writer.write_batch(with_source.select(ORIGIN_SCHEMA.names))
        release_freed_memory()


@contextmanager
def open_spool(
    path: Path, validator: RowValidator, quarantine: Quarantine, removal_list: RemovalList
) -> Iterator[RowSpool]:
    """Open a spool for writing an Arrow stream, which is complete at the end of the block."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, ORIGIN_SCHEMA, options=options) as writer,
    ):
        yield RowSpool(writer, validator, quarantine, removal_list)


def read_spool(path: Path, selected: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Yield the selected rows of a spool in batches of ORIGIN_SCHEMA, with their positions.

    Args:
        path: path of the Arrow stream written by `open_spool`.
        selected: mask of the rows, shape (rows,). Reading ends after the last selected row.
    """
    remaining, start = int(selected.sum()), 0
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        while remaining:
            batch = reader.read_next_batch()
            mask = selected[start : start + batch.num_rows]
            positions = np.flatnonzero(mask) + start
            start += batch.num_rows
            remaining -= len(positions)
            if len(positions):
                yield positions, batch.filter(pa.array(mask))
