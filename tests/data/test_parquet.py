from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment.data import parquet as storage
from sentiment.data.parquet import FILE_SCHEMA as SCHEMA
from sentiment.data.parquet import open_reviews_writer, read_reviews, stream_reviews, write_reviews
from sentiment.errors import UserError


@pytest.mark.parametrize("rows", [1, 30, 64, 200])
def test_file_does_not_depend_on_batch_size(
    rows: int, reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ROW_GROUP_SIZE", 50)
    write_reviews(tmp_path / "whole.parquet", reviews)
    with open_reviews_writer(tmp_path / "batches.parquet") as writer:
        for batch in reviews.to_batches(rows):
            writer.append(batch)
    assert (tmp_path / "batches.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    metadata = pq.read_metadata(tmp_path / "whole.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [50] * 4


def test_stream_can_be_iterated_repeatedly_in_bounded_batches(
    reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reviews(tmp_path / "a.parquet", reviews)
    monkeypatch.setattr(storage, "BATCH_ROWS", 64)
    stream = stream_reviews(tmp_path / "a.parquet")
    assert stream.num_rows == reviews.num_rows
    for _ in range(2):
        batches = list(stream)
        assert max(batch.num_rows for batch in batches) <= 64
        assert pa.Table.from_batches(batches).to_pydict() == reviews.to_pydict()
    assert read_reviews(tmp_path / "a.parquet").to_pydict() == reviews.to_pydict()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": ["a"], "label": [1]}, r"found words \(string\), label \(int64\)"),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int8())}, "contains no reviews"),
        ({"text": ["a", "b"], "label": pa.array([1, 1], pa.int8())}, r"found only labels \[1\]"),
        ({"text": ["a", "b", "c"], "label": pa.array([1, 0, None], pa.int8())}, "labels 0 and 1, found"),
    ],
)
def test_invalid_file_is_rejected_before_reading(
    columns: dict[str, object], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        stream_reviews(tmp_path / "a.parquet")


@pytest.mark.parametrize("number", [0, 2])
def test_unlabelled_split_is_read(number: int, tmp_path: Path) -> None:
    labels = pa.nulls(number, pa.int8())
    write_reviews(tmp_path / "a.parquet", pa.table({"text": ["a", "b"][:number], "label": labels}, SCHEMA))
    found = read_reviews(tmp_path / "a.parquet", labelled=False)
    assert found.to_pydict() == {"text": ["a", "b"][:number], "label": [None] * number}
    with pytest.raises(UserError):
        stream_reviews(tmp_path / "a.parquet")


def test_labels_in_the_unlabelled_split_are_an_error(reviews: pa.Table, tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.parquet", reviews)
    with pytest.raises(UserError, match=r"expected reviews without labels, found labels \[0, 1\]"):
        stream_reviews(tmp_path / "a.parquet", labelled=False)


def test_failure_while_writing_leaves_no_file(reviews: pa.Table, tmp_path: Path) -> None:
    def fail_after_one_batch() -> None:
        with open_reviews_writer(tmp_path / "a.parquet") as writer:
            writer.append(reviews)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_one_batch()
    assert list(tmp_path.iterdir()) == []
