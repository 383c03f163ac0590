"""Every source into one set of splits: checked, each review once, a batch at a time in memory.

Which of two equal reviews stays is known only when all have been seen. So a first pass reads the sources,
checks the rows and spools them to disk, keeping a digest of each text; a second writes the rows that stay.
"""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.errors import UserError
from sentiment.outputs import scratch
from sentiment.params.data import DownloadParams, ReviewChecks
from sentiment.progress import counting, track
from sentiment.reviews.checks import RowChecks
from sentiment.reviews.files import refuse_shared_files
from sentiment.reviews.quarantine import NAMED_ROWS, Quarantine, quarantining
from sentiment.reviews.repeats import STRONGEST_FIRST, kept_rows
from sentiment.reviews.sources import read_source
from sentiment.reviews.spool import Rows, spooled, spooling
from sentiment.reviews.statistics import describe
from sentiment.reviews.storage import WITH_ORIGIN, writing_reviews


def gather(params: DownloadParams) -> dict[str, Any]:
    """Write one Parquet file per split, the unlabelled one included, and the quarantine file.

    Returns the figures of all of it. Raises UserError, with nothing written, where a source cannot be read, a
    row fails the checks and bad rows are to stop, a split lacks a class, repeats or balance are past their
    limits, or the disk is full.
    """
    with (
        _full_disk_told(),
        scratch(paths.REVIEWS / ".spool") as folder,
        quarantining(paths.QUARANTINE) as quarantine,
    ):
        file = folder / "rows.arrows"
        rows, kept, counts = _read(params, file, quarantine)
        if params.checks.bad_rows == "stop":
            quarantine.refuse_any()
        _refuse_repeats(file, kept, params.checks)
        _refuse_imbalance(rows, kept, params.checks)
        _write(file, rows, kept)
    return {
        "sources": counts,
        "dropped_repeats": {split: int((~kept & rows.in_split(split)).sum()) for split in STRONGEST_FIRST},
        **{
            split: describe(rows.words[of_split], rows.labels[of_split])
            for split in STRONGEST_FIRST
            for of_split in [kept & rows.in_split(split)]
        },
    }


def _read(
    params: DownloadParams, file: Path, quarantine: Quarantine
) -> tuple[Rows, NDArray[np.bool_], dict[str, dict[str, int]]]:
    """Spool every source; return what is kept of the rows, which of them stay, and counts by source.

    The digests, most of what is kept, go with the spool when this ends: writing needs the memory.
    """
    refuse_shared_files((source.name, source.paths) for source in params.sources if source.kind == "files")
    with spooling(file, RowChecks(params.checks), quarantine) as spool:
        for source in params.sources:
            with counting(f"read {source.name}", None) as advance:
                for batch in read_source(source, params):
                    spool.append(batch, source.name)
                    advance(batch.num_rows)
    rows = spool.rows()
    return rows, kept_rows(spool.digests(), rows.splits), spool.counts


def _write(file: Path, rows: Rows, kept: NDArray[np.bool_]) -> None:
    with ExitStack() as stack:  # all files appear at its end, or none
        for code, split in enumerate(STRONGEST_FIRST):  # together they would hold a row group each
            stays = kept & (rows.splits == code)
            writer = stack.enter_context(writing_reviews(paths.reviews(split), WITH_ORIGIN))
            start = 0
            for batch in track(spooled(file), len(kept), f"write {split}", size=lambda batch: batch.num_rows):
                chosen = stays[start : start + batch.num_rows]
                start += batch.num_rows
                if chosen.any():
                    writer.append(batch.filter(pa.array(chosen)))
            writer.flush()


def _refuse_repeats(file: Path, kept: NDArray[np.bool_], checks: ReviewChecks) -> None:
    share = float(np.mean(~kept)) if len(kept) else 0.0
    if share <= checks.repeats:
        return
    named = _named(file, np.flatnonzero(~kept)[:NAMED_ROWS])
    raise UserError(
        "\n  ".join(
            [
                f"reviews: {share:.1%} repeat another one, more than download.checks.repeats "
                f"({checks.repeats:.1%}); for example:",
                *(f"{row}: its text stands elsewhere too" for row in named),
            ]
        )
    )


def _refuse_imbalance(rows: Rows, kept: NDArray[np.bool_], checks: ReviewChecks) -> None:
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


def _named(file: Path, positions: NDArray[np.int64]) -> list[str]:
    """Return source and row of the reviews at some positions of the spool."""
    names: list[str] = []
    start = 0
    for batch in spooled(file):
        for position in positions[(positions >= start) & (positions < start + batch.num_rows)] - start:
            names.append(f"{batch['source'][int(position)].as_py()}: {batch['row'][int(position)].as_py()}")
        start += batch.num_rows
        if len(names) == len(positions):
            break
    return names


@contextmanager
def _full_disk_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full: no room in {paths.REVIEWS} or {paths.REPORTS}, which need about twice what "
            f"the reviews have ({error})"
        ) from None
