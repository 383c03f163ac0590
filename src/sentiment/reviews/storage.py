"""Reviews on disk, as Parquet: whole, or a batch at a time where they need not fit in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.errors import UserError
from sentiment.outputs import replacing

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int8())])
"""What a model needs of a review."""

WITH_ORIGIN = pa.schema([*SCHEMA, ("source", pa.string()), ("row", pa.string()), ("group", pa.string())])
"""What a person needs besides: the source's name, where in it the review stands, and its group."""

ROW_GROUP = 10_000
"""Reviews in a row group: about 13 MB of text, of which a writer holds one and a reader decodes pages."""

READ_BYTES = 2**16
"""Read from the file at a time; else a column of a row group is, however large another writer made it."""

BATCH_ROWS = 1024
"""Reviews in a batch: enough to keep all cores busy with encoding, few enough to hold at no cost."""


def release_freed_memory() -> None:
    """Hand back what Arrow has freed; its pool, left to itself, keeps up to 40 MB more, by chance."""
    pa.default_memory_pool().release_unused()


class ReviewsWriter:
    """Gathers batches of any size into row groups of one size, so that equal reviews make equal bytes."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting = writer.schema.empty_table()

    def append(self, reviews: pa.RecordBatch | pa.Table) -> None:
        """Add reviews, with the columns of the file, after those that are there."""
        added = pa.Table.from_batches([reviews]) if isinstance(reviews, pa.RecordBatch) else reviews
        self._waiting = pa.concat_tables([self._waiting, added.cast(self._writer.schema)])
        while self._waiting.num_rows >= ROW_GROUP:
            self._write(self._waiting.slice(0, ROW_GROUP))
            self._waiting = self._waiting.slice(ROW_GROUP)

    def flush(self) -> None:
        """Write what waits as the last row group, which may be a short one."""
        if self._waiting.num_rows:
            self._write(self._waiting)
            self._waiting = self._writer.schema.empty_table()

    def _write(self, reviews: pa.Table) -> None:
        self._writer.write_table(reviews.combine_chunks(), row_group_size=ROW_GROUP)  # pages end with chunks
        release_freed_memory()


@contextmanager
def writing_reviews(path: Path, schema: pa.Schema = SCHEMA) -> Iterator[ReviewsWriter]:
    """Write one split, batch after batch; the file appears whole or not at all.

    schema: SCHEMA or WITH_ORIGIN.
    """
    options = {
        "compression": "zstd",
        "use_dictionary": [
            name for name in schema.names if name not in ("text", "row")
        ],  # those never repeat
        "write_page_checksum": True,  # else a flipped bit may pass for another text
    }
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as parquet:
        writer = ReviewsWriter(parquet)
        yield writer
        writer.flush()


def write_reviews(path: Path, reviews: pa.Table) -> None:
    """Write one split; equal reviews make equal bytes."""
    with writing_reviews(path) as writer:
        writer.append(reviews)


@dataclass(frozen=True)
class ReviewStream:
    """Reviews in a Parquet file, read anew, BATCH_ROWS at most at a time, whenever it is iterated.

    Iterating raises UserError where a page is torn or a text is missing.
    """

    path: Path
    num_rows: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with _faults_told(self.path), _open(self.path) as parquet:
            for row_group in range(parquet.num_row_groups):  # in one go, RSS grows from group to group
                for batch in parquet.iter_batches(BATCH_ROWS, [row_group], SCHEMA.names):
                    if batch["text"].null_count:
                        raise UserError(f"{self.path}: expected a text in every row, found none in some")
                    yield batch


def stream_reviews(path: Path, *, labelled: bool = True) -> ReviewStream:
    """Check one split and return it unread but for its labels; batches have columns text and label.

    labelled: False for the split of reviews without labels, which may be empty; its labels are null.
    Raises UserError where the file is missing, torn or has other columns; a labelled split also where it has
    no rows or one class only, the other one where it has labels.
    """
    with _faults_told(path), _open(path) as parquet:
        schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        if any(field not in schema for field in SCHEMA):
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(f"{path}: expected the columns text (string) and label (int8), found {found}")
        if rows == 0 and labelled:
            raise UserError(f"{path}: no reviews in it")
        labels = parquet.read(["label"])["label"].unique().sort().to_pylist()
    if labelled and labels != [0, 1]:
        raise UserError(f"{path}: expected reviews with labels 0 and 1, found {labels} alone")
    if not labelled and labels not in ([], [None]):
        raise UserError(f"{path}: expected reviews without labels, found labels {labels}")
    return ReviewStream(path, rows)


def read_reviews(path: Path, *, labelled: bool = True) -> pa.Table:
    """Read one split whole, with columns text (string) and label (int8).

    labelled, and what is raised: as of `stream_reviews`.
    """
    return pa.Table.from_batches(stream_reviews(path, labelled=labelled), SCHEMA)


def origins(path: Path, rows: Sequence[int]) -> list[str]:
    """Return the source and the place in it of some rows of a split, for a person to find them."""
    with _faults_told(path), _open(path) as parquet:
        table = parquet.read(["source", "row"]).take(list(rows))
    return [f"{source}: {row}" for source, row in zip(*table.to_pydict().values(), strict=True)]


def _open(path: Path) -> pq.ParquetFile:
    # Reading ahead, Arrow's default, keeps all that was read of the file until its end.
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)


@contextmanager
def _faults_told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it") from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise UserError(f"{path}: not a whole Parquet file: {error}") from None
