import pyarrow as pa

from sentiment.reviews.cleaning import normalized
from sentiment.reviews.rows import SCHEMA, batches_of, limited


def batches(split: str | None, labels: list[int | None]) -> list[pa.RecordBatch]:
    rows = [
        {"text": str(row), "label": label, "group": None, "split": split, "row": str(row)}
        for row, label in enumerate(labels)
    ]
    return pa.Table.from_pylist(rows, SCHEMA).to_batches(7)


def taken(found: list[pa.RecordBatch]) -> list[tuple[str, int | None]]:
    return [(row["row"], row["label"]) for batch in found for row in batch.to_pylist()]


def test_no_limit_takes_every_row_as_it_is() -> None:
    whole = batches("train", [0, 1, 1, None] * 5)
    assert list(limited(whole, None)) == whole


def test_limit_takes_the_first_rows_half_of_each_label() -> None:
    assert taken(list(limited(batches(None, [1] * 9 + [0] * 9), 4))) == [
        ("0", 1),
        ("1", 1),
        ("9", 0),
        ("10", 0),
    ]


def test_limit_counts_each_split_by_itself() -> None:
    both = [*batches("train", [0, 1] * 20), *batches("test", [0, 1] * 20)]
    found = [row["split"] for batch in limited(both, 10) for row in batch.to_pylist()]
    assert found == ["train"] * 10 + ["test"] * 10


def test_rows_without_label_are_taken_up_to_the_whole_limit() -> None:
    assert len(taken(list(limited(batches("unlabelled", [None] * 30), 20)))) == 20


def test_table_comes_in_batches_of_one_schema(reviews: pa.Table) -> None:
    nothing = pa.nulls(len(reviews), pa.string())
    table = reviews.select(["label", "text"])
    for name in ("row", "group", "split"):
        table = table.append_column(name, nothing)
    assert {batch.schema for batch in batches_of(table)} == {SCHEMA}


def test_normalized_text_has_no_markup_and_single_spaces() -> None:
    assert normalized(" One.<br />Two.<BR/>\n\tThree. ") == "One. Two. Three."
