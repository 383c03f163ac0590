"""Build the splits: read every source, then validate, deduplicate and write the reviews in batches."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.data.deduplication import DIGEST, SPLIT_PRECEDENCE, Duplicates, find_duplicates, hash_texts
from sentiment.data.near_duplicates import find_near_duplicates, writing_empty_report
from sentiment.data.parquet import ORIGIN_SCHEMA, open_reviews_writer, release_freed_memory
from sentiment.data.removal import RemovalList
from sentiment.data.review_files import require_distinct_files
from sentiment.data.splits import read_source
from sentiment.data.validation import (
    MAX_EXAMPLES,
    Quarantine,
    RowValidator,
    open_quarantine,
    require_balanced_labels,
    require_few_duplicates,
    summarize_split,
)
from sentiment.errors import DISK_FULL_ERRORS, UserError
from sentiment.files import temporary_folder
from sentiment.logs import progress, progress_bar
from sentiment.params.data import DownloadParams
from sentiment.text import normalize_text

logger = logging.getLogger(__name__)

NO_LABEL = -1
CONFLICT_REASON = "equal texts have different labels"


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


def build_splits(params: DownloadParams) -> dict[str, Any]:
    """Write one Parquet file per split, the quarantine and the near-duplicate report.

    Returns:
        Metrics of the sources, the dropped rows and the splits.

    Raises:
        UserError: a source cannot be read, a validation rule is violated, or the disk is full. No output is
            written.
    """
    with (
        _reporting_full_disk(),
        temporary_folder(paths.REVIEWS / ".spool") as folder,
        open_quarantine(paths.QUARANTINE) as quarantine,
    ):
        file = folder / "rows.arrows"
        rows, duplicates, counts = _read_sources(params, file, quarantine)
        retained = duplicates.retained
        if params.checks.bad_rows == "stop":
            quarantine.raise_if_any()
        rate = float(np.mean(~retained)) if len(retained) else 0.0
        require_few_duplicates(rate, lambda: _list_examples(file, ~retained), params.checks)
        require_balanced_labels(
            {split: rows.labels[retained & rows.split_mask(split)] for split in paths.LABELLED_SPLITS},
            params.checks,
        )
        with _searching_near_duplicates(params, file, rows, retained) as near_duplicates:
            _quarantine_conflicts(file, duplicates, quarantine)
            _write_splits(file, rows, retained)
    dropped = int((~retained).sum())
    read = "; ".join(
        f"{name}: {count['rows']:,} rows, {count['quarantined']:,} quarantined"
        for name, count in counts.sources.items()
    )
    removed = {split: counts.removed[split] for split in SPLIT_PRECEDENCE if split != "test"}
    logger.info(
        f"{read}; {sum(removed.values()):,} dropped as listed in {paths.REMOVED}; "
        f"{dropped:,} dropped as duplicates or for conflicting labels"
    )
    if listed := counts.removed["test"]:
        logger.warning(
            f"{paths.REMOVED}: {listed:,} of the listed reviews are in the test split and remain there, "
            "since it must not change; no model learns from them"
        )
    return {
        "sources": counts.sources,
        "removed": removed,
        "dropped_duplicates": _count_by_split(~retained, rows),
        "duplicates_of_test": _count_by_split(duplicates.of_test, rows),
        "conflicting_labels": _count_by_split(duplicates.conflicting, rows),
        **near_duplicates,
        **{
            split: summarize_split(rows.words[mask], rows.labels[mask])
            for split in SPLIT_PRECEDENCE
            for mask in [retained & rows.split_mask(split)]
        },
    }


def _read_sources(
    params: DownloadParams, file: Path, quarantine: Quarantine
) -> tuple[RowTable, Duplicates, RowCounts]:
    """Write every source to a spool; return the columns in memory, the duplicates and the row counts.

    The digests, which take most of the memory, are freed on return.
    """
    require_distinct_files((source.name, source.paths) for source in params.sources if source.kind == "files")
    removal_list = RemovalList.load(paths.REMOVED)
    with open_spool(file, RowValidator(params.checks), quarantine, removal_list) as spool:
        for source in params.sources:
            with progress_bar(f"read {source.name}", None) as advance:
                for batch in read_source(source, params):
                    spool.append(batch, source.name)
                    advance(batch.num_rows)
    rows = spool.rows()
    return rows, find_duplicates(spool.digests(), rows.splits, rows.labels), spool.counts


@contextmanager
def _searching_near_duplicates(
    params: DownloadParams, file: Path, rows: RowTable, retained: NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    """Search for near-duplicates of test reviews; yield the metrics and write the report at the end."""
    limits = params.checks.near_duplicates
    if limits is None:
        with writing_empty_report(paths.NEAR_DUPLICATES):
            yield {}
        return
    test_mask = rows.split_mask("test")
    with find_near_duplicates(
        lambda: _read_with_progress(file, test_mask, "index test"),
        lambda: _read_with_progress(file, retained & ~test_mask, "search near-duplicates"),
        lambda position: SPLIT_PRECEDENCE[rows.splits[position]],
        limits.similarity,
        paths.NEAR_DUPLICATES,
        file.parent,
    ) as found:
        found.require_few(limits)
        yield {"near_duplicates": found.compute_metrics()}


def _quarantine_conflicts(file: Path, duplicates: Duplicates, quarantine: Quarantine) -> None:
    """Quarantine the rows that are dropped because a duplicate has another label."""
    for _, batch in read_spool(file, duplicates.conflicting & ~duplicates.retained):
        for row in batch.to_pylist():
            quarantine.add(row["source"], row["row"], CONFLICT_REASON, row["text"])


def _write_splits(file: Path, rows: RowTable, retained: NDArray[np.bool_]) -> None:
    with ExitStack() as stack:  # at its end, all files are moved into place, or none
        for split in SPLIT_PRECEDENCE:  # one after another, because each writer holds a row group in memory
            selected = retained & rows.split_mask(split)
            writer = stack.enter_context(open_reviews_writer(paths.reviews(split), ORIGIN_SCHEMA))
            for _, batch in _read_with_progress(file, selected, f"write {split}"):
                writer.append(batch)
            writer.flush()


def _read_with_progress(
    file: Path, selected: NDArray[np.bool_], description: str
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Yield the selected rows of a spool, as `read_spool` does, and show the progress."""
    return progress(
        read_spool(file, selected), int(selected.sum()), description, size=lambda item: item[1].num_rows
    )


def _count_by_split(selected: NDArray[np.bool_], rows: RowTable) -> dict[str, int]:
    return {split: int((selected & rows.split_mask(split)).sum()) for split in SPLIT_PRECEDENCE}


def _list_examples(file: Path, selected: NDArray[np.bool_]) -> list[str]:
    """Return the source and row of the first MAX_EXAMPLES selected reviews, for a message."""
    first = selected & (np.cumsum(selected) <= MAX_EXAMPLES)
    return [
        f"{row['source']}: {row['row']}"
        for _, batch in read_spool(file, first)
        for row in batch.select(["source", "row"]).to_pylist()
    ]


@contextmanager
def _reporting_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        raise UserError(
            f"the disk is full: cannot write to {paths.REVIEWS} or {paths.REPORTS}, which need about twice "
            f"the size of the reviews ({error})"
        ) from None
