"""What every source yields: reviews in record batches of one schema."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

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


def batches_of(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield a table of this schema in batches."""
    yield from table.select(SCHEMA.names).cast(SCHEMA).combine_chunks().to_batches(ROWS_PER_BATCH)


def limited(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the first reviews of each split of the source, `limit` at most, half of each label.

    Where there is no label, `limit` of them. None takes all.
    """
    if limit is None:
        yield from batches
        return
    taken: dict[tuple[str | None, int | None], int] = {}
    for batch in batches:
        kept = []
        for row, kind in enumerate(zip(batch["split"].to_pylist(), batch["label"].to_pylist(), strict=True)):
            most = limit if kind[1] is None else limit // 2
            if taken.get(kind, 0) < most:
                taken[kind] = taken.get(kind, 0) + 1
                kept.append(row)
        if kept:
            yield batch.take(pa.array(kept))
