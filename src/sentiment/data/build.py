"""Build the splits: read every source, then validate, deduplicate and write the reviews in batches."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.data.deduplication import SPLIT_PRECEDENCE, Duplicates, find_duplicates
from sentiment.data.incoming import assign_incoming_files, warn_about_unread_files
from sentiment.data.near_duplicates import find_near_duplicates, writing_empty_report
from sentiment.data.parquet import ORIGIN_SCHEMA, open_reviews_writer
from sentiment.data.removal import RemovalList
from sentiment.data.review_files import list_distinct_files
from sentiment.data.row_spool import RowCounts, RowTable, open_spool, read_spool
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
from sentiment.params.sources import FilesSource

logger = logging.getLogger(__name__)

CONFLICT_REASON = "equal texts have different labels"


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
    incoming = assign_incoming_files(params.sources)
    files = list_distinct_files(
        (source.name, incoming.get(source.name, source.paths))
        for source in params.sources
        if isinstance(source, FilesSource)
    )
    warn_about_unread_files(files)
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
