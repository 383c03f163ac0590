"""What every source yields: reviews in record batches of one schema."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from heapq import heappush, heapreplace

import pyarrow as pa

from sentiment.errors import UserError
from sentiment.reviews.keys import duplicate_key

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


def batches_of(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield a table of this schema in batches."""
    yield from table.select(SCHEMA.names).cast(SCHEMA).combine_chunks().to_batches(ROWS_PER_BATCH)


def limited(
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
    chosen, rows = _smallest(read(), limit, seed)
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


def _smallest(batches: Iterable[pa.RecordBatch], limit: int, seed: int) -> tuple[list[int], int]:
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
    key = duplicate_key(text)
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8, person=b"limit").digest()
    return int.from_bytes(digest, "big")
