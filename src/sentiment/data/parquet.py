"""Reviews as record batches in memory and as Parquet files on disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappush, heapreplace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.data.deduplication import compute_duplicate_key
from sentiment.errors import UserError
from sentiment.files import atomic_write

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.int8()),  # 0 negative, 1 positive, null where unlabelled
        ("group", pa.string()),  # rows of a group are in the same split; null: no group
        ("split", pa.string()),  # train, validation, test or unlabelled; null: not assigned yet
        ("row", pa.string()),  # location of the row in its source, for messages
    ]
)
ROWS_PER_BATCH = 2_000

_POSITION_BITS = 40
"""Number of lower bits of a rank that hold the position of a row; enough for a trillion rows."""


def to_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Convert a table to SCHEMA and yield it in batches."""
    yield from table.select(SCHEMA.names).cast(SCHEMA).combine_chunks().to_batches(ROWS_PER_BATCH)


def sample_reviews(
    read: Callable[[], Iterable[pa.RecordBatch]], limit: int | None, seed: int
) -> Iterator[pa.RecordBatch]:
    """Yield a sample of a source's reviews, in the order of the source.

    The source is read twice, first to select reviews and then to yield them, so that no texts are held in
    memory. The reviews whose texts have the smallest hashes are selected, so that the sample does not depend
    on the order of the source, and a larger limit only adds reviews.

    Args:
        read: function that reads the source from the start. It is called twice if there is a limit.
        limit: maximum number of reviews of each predefined split of the source: `limit // 2` of each label,
            and `limit` unlabelled reviews. None: all reviews.
        seed: seed of the hash.

    Raises:
        UserError: the number of rows differs between the two passes.
    """
    if limit is None:
        yield from read()
        return
    selected, rows = _select_smallest(read(), limit, seed)
    remaining = iter(selected)
    position = next(remaining, None)
    start = 0
    for batch in read():
        indices = []
        while position is not None and position < start + batch.num_rows:
            indices.append(position - start)
            position = next(remaining, None)
        start += batch.num_rows
        if indices:
            yield batch.take(pa.array(indices))
    if start != rows:
        raise UserError(f"a source changed while it was read: it had {rows:,} rows, then {start:,}")


def _select_smallest(batches: Iterable[pa.RecordBatch], limit: int, seed: int) -> tuple[list[int], int]:
    """Return the sorted positions of the selected rows, and the number of all rows.

    Only the smallest ranks so far are held in memory, in heaps whose first element is the largest rank. A
    rank consists of the hash and, to order equal texts, the position.
    """
    best: dict[tuple[str | None, int | None], list[int]] = {}
    position = 0
    for batch in batches:
        columns = (batch[name].to_pylist() for name in ("text", "split", "label"))
        for text, split, label in zip(*columns, strict=True):
            heap = best.setdefault((split, label), [])
            rank = -(_compute_sampling_hash(text or "", seed) << _POSITION_BITS | position)
            if len(heap) < (limit if label is None else limit // 2):
                heappush(heap, rank)
            elif rank > heap[0]:
                heapreplace(heap, rank)
            position += 1
    mask = (1 << _POSITION_BITS) - 1
    return sorted(-rank & mask for heap in best.values() for rank in heap), position


def _compute_sampling_hash(text: str, seed: int) -> int:
    """Return a 64-bit hash, independent of the split hash so that the sample has reviews of all splits."""
    key = compute_duplicate_key(text)
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8, person=b"limit").digest()
    return int.from_bytes(digest, "big")


FILE_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int8())])
"""Columns that training reads."""

ORIGIN_SCHEMA = pa.schema(
    [*FILE_SCHEMA, ("source", pa.string()), ("row", pa.string()), ("group", pa.string())]
)
"""FILE_SCHEMA with columns for messages: name of the source, location of the row in it, and group."""

ROW_GROUP_SIZE = 10_000
"""Number of reviews in a row group, about 13 MB of text. A writer holds one row group in memory."""

READ_BYTES = 2**16
"""Buffer size for reading. Without a buffer, whole columns of row groups are read, which may be large."""

BATCH_ROWS = 1024
"""Number of reviews in a batch: enough for all cores to encode in parallel, with little memory."""


def release_freed_memory() -> None:
    """Return freed memory to the system. Arrow's memory pool would keep up to 40 MB of it."""
    pa.default_memory_pool().release_unused()


class ReviewsWriter:
    """Writes row groups of a fixed size, so that identical reviews produce identical files."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._pending = writer.schema.empty_table()

    def append(self, reviews: pa.RecordBatch | pa.Table) -> None:
        """Append reviews, which must have the columns of the file."""
        added = pa.Table.from_batches([reviews]) if isinstance(reviews, pa.RecordBatch) else reviews
        self._pending = pa.concat_tables([self._pending, added.cast(self._writer.schema)])
        while self._pending.num_rows >= ROW_GROUP_SIZE:
            self._write(self._pending.slice(0, ROW_GROUP_SIZE))
            self._pending = self._pending.slice(ROW_GROUP_SIZE)

    def flush(self) -> None:
        """Write the pending reviews as the last row group."""
        if self._pending.num_rows:
            self._write(self._pending)
            self._pending = self._writer.schema.empty_table()

    def _write(self, reviews: pa.Table) -> None:
        self._writer.write_table(
            reviews.combine_chunks(), row_group_size=ROW_GROUP_SIZE
        )  # a page ends at the end of a chunk
        release_freed_memory()


@contextmanager
def open_reviews_writer(path: Path, schema: pa.Schema = FILE_SCHEMA) -> Iterator[ReviewsWriter]:
    """Open a writer for the reviews of one split. The file is moved to `path` only if the block succeeds.

    Args:
        path: path of the Parquet file.
        schema: FILE_SCHEMA or ORIGIN_SCHEMA.
    """
    options = {
        "compression": "zstd",
        # text and row are unique, so a dictionary would not compress them
        "use_dictionary": [name for name in schema.names if name not in ("text", "row")],
        "write_page_checksum": True,  # detects flipped bits in texts
    }
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as parquet:
        writer = ReviewsWriter(parquet)
        yield writer
        writer.flush()


def write_reviews(path: Path, reviews: pa.Table) -> None:
    """Write the reviews of one split."""
    with open_reviews_writer(path) as writer:
        writer.append(reviews)


@dataclass(frozen=True)
class ReviewStream:
    """Reviews in a Parquet file, read in batches of up to BATCH_ROWS from the start at each iteration.

    Iterating raises UserError if a page is corrupt or a text is missing.
    """

    path: Path
    num_rows: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with _reporting_corrupt_file(self.path), _open_parquet(self.path) as parquet:
            # One row group at a time; otherwise memory use grows with each row group.
            for row_group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(BATCH_ROWS, [row_group], FILE_SCHEMA.names):
                    if batch["text"].null_count:
                        raise UserError(f"{self.path}: expected a text in every row, but some rows have none")
                    yield batch


def stream_reviews(path: Path, *, labelled: bool = True) -> ReviewStream:
    """Validate the file of one split and return its reviews as a stream of text and label.

    The validation reads only the labels.

    Args:
        path: path of the Parquet file.
        labelled: False for the unlabelled split, which may be empty and whose labels are null.

    Raises:
        UserError: the file is missing, corrupt or has other columns. A labelled split has no reviews or
            reviews of one label only, or the unlabelled split has labels.
    """
    with _reporting_corrupt_file(path), _open_parquet(path) as parquet:
        schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        if any(field not in schema for field in FILE_SCHEMA):
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(f"{path}: expected the columns text (string) and label (int8), found {columns}")
        if rows == 0 and labelled:
            raise UserError(f"{path}: contains no reviews")
        labels = parquet.read(["label"])["label"].unique().sort().to_pylist()
    if labelled and labels != [0, 1]:
        raise UserError(f"{path}: expected reviews with labels 0 and 1, found only labels {labels}")
    if not labelled and labels not in ([], [None]):
        raise UserError(f"{path}: expected reviews without labels, found labels {labels}")
    return ReviewStream(path, rows)


def stream_texts(path: Path) -> Iterator[list[str]]:
    """Yield the texts of one split in batches; the split may be empty, and labelled or not.

    Raises:
        UserError: the file is missing or corrupt.
    """
    with _reporting_corrupt_file(path), _open_parquet(path) as parquet:
        rows = parquet.metadata.num_rows
    for batch in ReviewStream(path, rows):
        yield batch["text"].to_pylist()


def read_reviews(path: Path, *, labelled: bool = True) -> pa.Table:
    """Read one split into memory, with columns text (string) and label (int8).

    Args and exceptions are those of `stream_reviews`.
    """
    return pa.Table.from_batches(stream_reviews(path, labelled=labelled), FILE_SCHEMA)


def read_reviews_with_origin(path: Path) -> pa.Table:
    """Read one labelled split into memory, with the columns of ORIGIN_SCHEMA.

    Exceptions are those of `stream_reviews`.
    """
    stream_reviews(path)
    with _reporting_corrupt_file(path), _open_parquet(path) as parquet:
        return parquet.read(ORIGIN_SCHEMA.names)


def read_origins(path: Path, rows: Sequence[int]) -> list[str]:
    """Return the source of some rows of a split, and their location in the source, for messages."""
    with _reporting_corrupt_file(path), _open_parquet(path) as parquet:
        table = parquet.read(["source", "row"]).take(list(rows))
    return [f"{source}: {row}" for source, row in zip(*table.to_pydict().values(), strict=True)]


def _open_parquet(path: Path) -> pq.ParquetFile:
    # With Arrow's default, reading ahead, everything read is held in memory until the end of the file.
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)


@contextmanager
def _reporting_corrupt_file(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; create it with `dvc repro`, or fetch it with `dvc pull`"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise UserError(f"{path}: truncated or corrupt Parquet file: {error}") from None
