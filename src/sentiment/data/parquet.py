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
from sentiment.files import replacing

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.int8()),  # 0 negative, 1 positive, null where unlabelled
        ("group", pa.string()),  # rows of one group stay on one side of every split; null: a group of its own
        ("split", pa.string()),  # train, validation, test or unlabelled; null where the source has no split
        ("row", pa.string()),  # where the row stands in its source, for a person to find it
    ]
)
ROWS_PER_BATCH = 2_000

_POSITION_BITS = 40
"""Of a rank: what is left of its lower end holds the position of a row among a trillion."""


def to_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield a table of this schema in batches."""
    yield from table.select(SCHEMA.names).cast(SCHEMA).combine_chunks().to_batches(ROWS_PER_BATCH)


def sample_reviews(
    read: Callable[[], Iterable[pa.RecordBatch]], limit: int | None, seed: int
) -> Iterator[pa.RecordBatch]:
    """Yield a sample of a source's reviews, in the source's order.

    The source is read twice, so that no texts are held: once to choose, once to yield what was chosen.

    Args:
        read: Begins to read the source; called twice where there is a limit.
        limit: Most reviews of each split of the source, half of each label, or `limit` where there is none.
            None takes all.
        seed: Of the hash that chooses: the reviews whose texts have the smallest ones. So the sample does
            not depend on where a review stands, and a larger limit only adds to it.

    Raises:
        UserError: The second reading gave fewer or more rows than the first.
    """
    if limit is None:
        yield from read()
        return
    chosen, rows = _select_smallest(read(), limit, seed)
    waiting = iter(chosen)
    position = next(waiting, None)
    start = 0
    for batch in read():
        kept = []
        while position is not None and position < start + batch.num_rows:
            kept.append(position - start)
            position = next(waiting, None)
        start += batch.num_rows
        if kept:
            yield batch.take(pa.array(kept))
    if start != rows:
        raise UserError(f"a source changed while it was read: {rows:,} rows, then {start:,}")


def _select_smallest(batches: Iterable[pa.RecordBatch], limit: int, seed: int) -> tuple[list[int], int]:
    """Return the positions of the rows to take, in order, and the number of rows.

    Held are the ranks of the best rows alone, largest first out: each is a number of a hash and, where the
    texts are equal, the position.
    """
    best: dict[tuple[str | None, int | None], list[int]] = {}
    position = 0
    for batch in batches:
        columns = (batch[name].to_pylist() for name in ("text", "split", "label"))
        for text, split, label in zip(*columns, strict=True):
            held = best.setdefault((split, label), [])
            rank = -(_sampling_hash(text or "", seed) << _POSITION_BITS | position)
            if len(held) < (limit if label is None else limit // 2):
                heappush(held, rank)
            elif rank > held[0]:
                heapreplace(held, rank)
            position += 1
    mask = (1 << _POSITION_BITS) - 1
    return sorted(-rank & mask for held in best.values() for rank in held), position


def _sampling_hash(text: str, seed: int) -> int:
    """Return a number of 64 bits that has nothing to do with the one that splits: else all would be test."""
    key = compute_duplicate_key(text)
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8, person=b"limit").digest()
    return int.from_bytes(digest, "big")


FILE_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int8())])
"""What a model needs of a review."""

ORIGIN_SCHEMA = pa.schema(
    [*FILE_SCHEMA, ("source", pa.string()), ("row", pa.string()), ("group", pa.string())]
)
"""What a person needs besides: the source's name, where in it the review stands, and its group."""

ROW_GROUP_SIZE = 10_000
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
        while self._waiting.num_rows >= ROW_GROUP_SIZE:
            self._write(self._waiting.slice(0, ROW_GROUP_SIZE))
            self._waiting = self._waiting.slice(ROW_GROUP_SIZE)

    def flush(self) -> None:
        """Write what waits as the last row group, which may be a short one."""
        if self._waiting.num_rows:
            self._write(self._waiting)
            self._waiting = self._writer.schema.empty_table()

    def _write(self, reviews: pa.Table) -> None:
        self._writer.write_table(
            reviews.combine_chunks(), row_group_size=ROW_GROUP_SIZE
        )  # pages end with chunks
        release_freed_memory()


@contextmanager
def open_reviews_writer(path: Path, schema: pa.Schema = FILE_SCHEMA) -> Iterator[ReviewsWriter]:
    """Write one split, batch after batch; the file appears whole or not at all.

    schema: FILE_SCHEMA or ORIGIN_SCHEMA.
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
    with open_reviews_writer(path) as writer:
        writer.append(reviews)


@dataclass(frozen=True)
class ReviewStream:
    """Reviews in a Parquet file, read anew, BATCH_ROWS at most at a time, whenever it is iterated.

    Iterating raises UserError where a page is torn or a text is missing.
    """

    path: Path
    num_rows: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with _reporting_corrupt_file(self.path), _open(self.path) as parquet:
            for row_group in range(parquet.num_row_groups):  # in one go, RSS grows from group to group
                for batch in parquet.iter_batches(BATCH_ROWS, [row_group], FILE_SCHEMA.names):
                    if batch["text"].null_count:
                        raise UserError(f"{self.path}: expected a text in every row, found none in some")
                    yield batch


def stream_reviews(path: Path, *, labelled: bool = True) -> ReviewStream:
    """Check one split and return it unread but for its labels; batches have columns text and label.

    labelled: False for the split of reviews without labels, which may be empty; its labels are null.
    Raises UserError where the file is missing, torn or has other columns; a labelled split also where it has
    no rows or one class only, the other one where it has labels.
    """
    with _reporting_corrupt_file(path), _open(path) as parquet:
        schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        if any(field not in schema for field in FILE_SCHEMA):
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
    return pa.Table.from_batches(stream_reviews(path, labelled=labelled), FILE_SCHEMA)


def read_origins(path: Path, rows: Sequence[int]) -> list[str]:
    """Return the source and the place in it of some rows of a split, for a person to find them."""
    with _reporting_corrupt_file(path), _open(path) as parquet:
        table = parquet.read(["source", "row"]).take(list(rows))
    return [f"{source}: {row}" for source, row in zip(*table.to_pydict().values(), strict=True)]


def _open(path: Path) -> pq.ParquetFile:
    # Reading ahead, Arrow's default, keeps all that was read of the file until its end.
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)


@contextmanager
def _reporting_corrupt_file(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it") from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise UserError(f"{path}: not a whole Parquet file: {error}") from None
