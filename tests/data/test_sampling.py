from collections import Counter

import pyarrow as pa
import pytest

from sentiment.data.parquet import SCHEMA, sample_reviews, to_batches
from sentiment.data.splits import split_by_hash
from sentiment.errors import UserError
from sentiment.params.data import SplitFractions
from sentiment.text import normalize_text

Batches = list[pa.RecordBatch]
Taken = list[tuple[str, int | None]]


def batches(split: str | None, labels: list[int | None], texts: list[str] | None = None) -> Batches:
    rows = [
        {
            "text": texts[row] if texts else f"{split} {row}",
            "label": label,
            "group": None,
            "split": split,
            "row": str(row),
        }
        for row, label in enumerate(labels)
    ]
    return list(pa.Table.from_pylist(rows, SCHEMA).to_batches(7))


def sample(whole: Batches, limit: int | None, seed: int = 42) -> Taken:
    found = sample_reviews(lambda: whole, limit, seed)
    return [(row["row"], row["label"]) for batch in found for row in batch.to_pylist()]


def test_no_limit_returns_every_row() -> None:
    whole = batches("train", [0, 1, 1, None] * 5)
    assert list(sample_reviews(lambda: whole, None, 42)) == whole


def test_sample_has_half_of_each_label_in_source_order() -> None:
    taken = sample(batches(None, [1] * 90 + [0] * 90), 40)
    assert Counter(label for _, label in taken) == {0: 20, 1: 20}
    assert [int(row) for row, _ in taken] == sorted(int(row) for row, _ in taken)


def test_sample_covers_the_whole_source() -> None:
    taken = [int(row) for row, _ in sample(batches(None, [0, 1] * 500), 200)]
    by_quarter = Counter(row // 250 for row in taken)
    assert all(30 < by_quarter[quarter] < 70 for quarter in range(4))


def test_limit_applies_to_each_split() -> None:
    both = [*batches("train", [0, 1] * 20), *batches("test", [0, 1] * 20)]
    found = [row["split"] for batch in sample_reviews(lambda: both, 10, 42) for row in batch.to_pylist()]
    assert found == ["train"] * 10 + ["test"] * 10


def test_limit_of_unlabelled_rows() -> None:
    assert len(sample(batches("unlabelled", [None] * 30), 20)) == 20


def test_source_smaller_than_the_limit_is_complete() -> None:
    assert len(sample(batches(None, [0, 1] * 15), 100)) == 30


def test_sample_does_not_depend_on_order_and_grows_with_the_limit() -> None:
    texts = [f"review {row}" for row in range(200)]
    labels: list[int | None] = [0, 1] * 100
    forward = sample(batches(None, labels, texts), 40)
    backward = sample(batches(None, labels[::-1], texts[::-1]), 40)
    assert {texts[int(row)] for row, _ in forward} == {texts[::-1][int(row)] for row, _ in backward}
    assert set(forward) < set(sample(batches(None, labels, texts), 60))
    assert set(forward) != set(sample(batches(None, labels, texts), 40, seed=43))


def test_equal_texts_are_sampled_together() -> None:
    texts = [f"{row // 4}" if row % 2 else f" {row // 4}<br />" for row in range(400)]
    taken = sample(batches(None, [0, 1] * 200, texts), 200)
    sizes = Counter(int(row) // 4 for row, _ in taken)
    assert sum(size < 4 for size in sizes.values()) <= 1  # one at most is cut by the limit


def test_sample_has_reviews_in_every_split() -> None:
    """A hash that chose the sample and the split too would put all of a small sample in one split."""
    taken = sample_reviews(lambda: batches(None, [0, 1] * 5_000), 200, 42)
    split = split_by_hash(taken, SplitFractions(train=0.4, validation=0.2, holdout=0.2, test=0.2), 42)
    sizes = Counter(row["split"] for batch in split for row in batch.to_pylist())
    assert sizes["train"] > 60
    assert min(sizes["validation"], sizes["holdout"], sizes["test"]) > 20


def test_source_that_changes_between_two_reads_is_an_error() -> None:
    readings = iter([batches(None, [0, 1] * 20), batches(None, [0, 1] * 19)])
    with pytest.raises(UserError, match="changed while it was read: it had 40 rows, then 38"):
        list(sample_reviews(lambda: next(readings), 20, 42))


def test_table_is_converted_to_batches(reviews: pa.Table) -> None:
    nothing = pa.nulls(len(reviews), pa.string())
    table = reviews.select(["label", "text"])
    for name in ("row", "group", "split"):
        table = table.append_column(name, nothing)
    assert {batch.schema for batch in to_batches(table)} == {SCHEMA}


def test_normalized_text_has_no_markup_and_single_spaces() -> None:
    assert normalize_text(" One.<br />Two.<BR/>\n\tThree. ") == "One. Two. Three."
