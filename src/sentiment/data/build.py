"""Build the splits: read every source, validate, deduplicate and write, one batch at a time in memory."""

import errno
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
from sentiment.data.download import fetch
from sentiment.data.imdb import read_imdb, read_package
from sentiment.data.near_duplicates import find_near_duplicates, writing_empty_report
from sentiment.data.parquet import ORIGIN_SCHEMA, SCHEMA, open_reviews_writer, sample_reviews, to_batches
from sentiment.data.recorded_files import read_incoming, require_tracked_files
from sentiment.data.review_files import read_files, require_distinct_files
from sentiment.data.row_spool import (
    RowTable,
    open_spool,
    read_spool,
    require_balanced_labels,
    require_few_duplicates,
    require_few_near_duplicates,
)
from sentiment.data.splits import assign_to_train, split_by_hash, split_in_blocks, split_validation_from_train
from sentiment.data.validation import MAX_EXAMPLES, Quarantine, RowValidator, open_quarantine, summarize_split
from sentiment.errors import UserError
from sentiment.files import scratch
from sentiment.logs import progress, progress_bar
from sentiment.params.data import (
    AnySource,
    DownloadParams,
    FilesSource,
    ImdbSource,
    IncomingSource,
    PackageSource,
)

logger = logging.getLogger(__name__)


def read_source(source: AnySource, params: DownloadParams) -> Iterator[pa.RecordBatch]:
    """Yield a source's reviews in batches of `rows.SCHEMA`, each review in a split.

    What split a review is in does not depend on the other sources.
    Raises UserError where the source cannot be reached or read.
    """
    match source:
        case PackageSource():
            batches = _split_package(params)
        case ImdbSource():
            path = fetch(source.urls, source.checksum)
            archive = sample_reviews(lambda: read_imdb(path, source.limits), params.limit, params.seed)
            batches = split_validation_from_train(archive, params.split, params.seed)
        case IncomingSource():
            rows = sample_reviews(lambda: read_incoming(source), params.limit, params.seed)
            batches = split_by_hash(rows, params.split, params.seed)
        case FilesSource():
            if any(paths.INCOMING in Path(path).parents for path in source.paths):
                require_tracked_files(paths.INCOMING)
            rows = sample_reviews(lambda: read_files(source), params.limit, params.seed)
            batches = split_by_hash(rows, params.split, params.seed)
    return assign_to_train(batches) if source.role == "train" else batches


def _split_package(params: DownloadParams) -> Iterator[pa.RecordBatch]:
    whole = read_package()
    taken = pa.Table.from_batches(
        sample_reviews(lambda: to_batches(whole), params.limit, params.seed), SCHEMA
    )
    splits = split_in_blocks(taken["label"], params.split, params.seed)
    yield from to_batches(taken.set_column(SCHEMA.get_field_index("split"), "split", splits))


CONFLICT_REASON = "equal texts have different labels"


def build_splits(params: DownloadParams) -> dict[str, Any]:
    """Write one Parquet file per split, the unlabelled one included, and the reports on rows.

    Returns the figures of all of it. Raises UserError, with nothing written, where a source cannot be read, a
    row fails the checks and bad rows are to stop, a split lacks a class, duplicates, near-duplicates or
    balance are past their limits, or the disk is full.
    """
    with (
        _reporting_full_disk(),
        scratch(paths.REVIEWS / ".spool") as folder,
        open_quarantine(paths.QUARANTINE) as quarantine,
    ):
        file = folder / "rows.arrows"
        rows, duplicates, counts = _read_sources(params, file, quarantine)
        kept = duplicates.retained
        if params.checks.bad_rows == "stop":
            quarantine.raise_if_any()
        dropped_share = float(np.mean(~kept)) if len(kept) else 0.0
        require_few_duplicates(dropped_share, lambda: _list_examples(file, ~kept), params.checks)
        require_balanced_labels(rows, kept, params.checks)
        with _searching_near_duplicates(params, file, rows, kept) as near:
            _quarantine_conflicts(file, duplicates, quarantine)
            _write_splits(file, rows, kept)
    dropped_rows = int((~kept).sum())
    read = "; ".join(
        f"{name}: {count['rows']:,} rows, {count['quarantined']:,} quarantined"
        for name, count in counts.items()
    )
    logger.info(f"{read}; {dropped_rows:,} dropped as duplicates or for conflicting labels")
    return {
        "sources": counts,
        "dropped_duplicates": _count_by_split(~kept, rows),
        "conflicting_labels": _count_by_split(duplicates.conflicting, rows),
        **near,
        **{
            split: summarize_split(rows.words[of_split], rows.labels[of_split])
            for split in SPLIT_PRECEDENCE
            for of_split in [kept & rows.in_split(split)]
        },
    }


def _read_sources(
    params: DownloadParams, file: Path, quarantine: Quarantine
) -> tuple[RowTable, Duplicates, dict[str, dict[str, int]]]:
    """Spool every source; return what is kept of the rows, which of them stay, and counts by source.

    The digests, most of what is kept, go with the spool when this ends: writing needs the memory.
    """
    require_distinct_files((source.name, source.paths) for source in params.sources if source.kind == "files")
    with open_spool(file, RowValidator(params.checks), quarantine) as spool:
        for source in params.sources:
            with progress_bar(f"read {source.name}", None) as advance:
                for batch in read_source(source, params):
                    spool.append(batch, source.name)
                    advance(batch.num_rows)
    rows = spool.rows()
    return rows, find_duplicates(spool.digests(), rows.splits, rows.labels), spool.counts


@contextmanager
def _searching_near_duplicates(
    params: DownloadParams, file: Path, rows: RowTable, kept: NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    """Search for near-duplicates of test reviews and yield the figures; the list appears at the end."""
    limits = params.checks.near_duplicates
    if limits is None:
        with writing_empty_report(paths.NEAR_DUPLICATES):
            yield {}
        return
    in_test = rows.in_split("test")
    with find_near_duplicates(
        lambda: _read_with_progress(file, in_test, "index test"),
        lambda: _read_with_progress(file, kept & ~in_test, "look for near-duplicates"),
        lambda position: SPLIT_PRECEDENCE[rows.splits[position]],
        limits.similarity,
        paths.NEAR_DUPLICATES,
        file.parent,
    ) as found:
        require_few_near_duplicates(found, limits)
        yield {"near_duplicates": found.metrics()}


def _quarantine_conflicts(file: Path, duplicates: Duplicates, quarantine: Quarantine) -> None:
    """List the rows that are dropped because an equal text has the other label."""
    for _, batch in read_spool(file, duplicates.conflicting & ~duplicates.retained):
        for row in batch.to_pylist():
            quarantine.add(row["source"], row["row"], CONFLICT_REASON, row["text"])


def _write_splits(file: Path, rows: RowTable, kept: NDArray[np.bool_]) -> None:
    with ExitStack() as stack:  # all files appear at its end, or none
        for split in SPLIT_PRECEDENCE:  # together they would hold a row group each
            stays = kept & rows.in_split(split)
            writer = stack.enter_context(open_reviews_writer(paths.reviews(split), ORIGIN_SCHEMA))
            for _, batch in _read_with_progress(file, stays, f"write {split}"):
                writer.append(batch)
            writer.flush()


def _read_with_progress(
    file: Path, chosen: NDArray[np.bool_], description: str
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Yield some of the spooled reviews, as `spooled` does, while showing how far it is."""
    return progress(
        read_spool(file, chosen), int(chosen.sum()), description, size=lambda found: found[1].num_rows
    )


def _count_by_split(chosen: NDArray[np.bool_], rows: RowTable) -> dict[str, int]:
    return {split: int((chosen & rows.in_split(split)).sum()) for split in SPLIT_PRECEDENCE}


def _list_examples(file: Path, chosen: NDArray[np.bool_]) -> list[str]:
    """Return source and row of the first of some reviews in the spool."""
    first = chosen & (np.cumsum(chosen) <= MAX_EXAMPLES)
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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full: no room in {paths.REVIEWS} or {paths.REPORTS}, which need about twice what "
            f"the reviews have ({error})"
        ) from None
