from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment.data import delimited
from sentiment.data import json_parquet as json_lines
from sentiment.data import json_parquet as parquet
from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.sources import Columns, FilesSource
from tests.data.source_files import files_source, write_bytes, write_rows

ROWS = [
    {"text": 'A "fine", long\nfilm', "label": 1, "film": "tt1"},
    {"text": "Ein Fehler; schön ist er nicht\t🎬", "label": 0, "film": "tt2"},
    {"text": "", "label": 1, "film": "tt2"},
]
KAGGLE = [
    {"PhraseId": 1, "SentenceId": 1, "Phrase": "A series of escapades", "Sentiment": 1},
    {"PhraseId": 2, "SentenceId": 1, "Phrase": "A series", "Sentiment": 2},
    {"PhraseId": 3, "SentenceId": 1, "Phrase": 'good for the "goose"', "Sentiment": 3},
    {"PhraseId": 4, "SentenceId": 2, "Phrase": "amusing", "Sentiment": 4},
    {"PhraseId": 5, "SentenceId": 2, "Phrase": "none of which amounts to much", "Sentiment": 0},
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*paths: str, **changes: Any) -> list[dict[str, Any]]:
    source = FilesSource.model_validate(files_source(*paths, **changes))
    return [row for batch in read_files(source) for row in batch.to_pylist()]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_text_is_equal_in_each_format_and_compression(kind: str, packing: str) -> None:
    name = f"a.{kind}{packing}"
    write_rows(Path(name), ROWS)
    found = read(name, columns={"text": "text", "label": "label", "group": "film"})
    assert [(row["text"], row["label"], row["group"]) for row in found] == [tuple(r.values()) for r in ROWS]
    assert [row["row"] for row in found] == [f"{name} row {number}" for number in (1, 2, 3)]
    assert {row["split"] for row in found} == {None}


def test_parquet_with_integer_labels() -> None:
    write_rows(Path("a.parquet"), ROWS)
    found = read("a.parquet", columns={"text": "text", "label": "label", "group": "film"})
    assert [(row["text"], row["label"], row["group"]) for row in found] == [tuple(r.values()) for r in ROWS]


def test_kaggle_phrases() -> None:
    """Five classes become two, the middle one is dropped, a sentence's phrases share a group."""
    write_rows(Path("train.tsv"), KAGGLE)
    found = read(
        "train.tsv",
        columns={"text": "Phrase", "label": "Sentiment", "group": "SentenceId"},
        labels={"0": 0, "1": 0, "2": None, "3": 1, "4": 1},
    )
    assert [tuple(row[key] for key in ("text", "label", "group", "row")) for row in found] == [
        ("A series of escapades", 0, "1", "train.tsv row 1"),
        ('good for the "goose"', 1, "1", "train.tsv row 3"),
        ("amusing", 1, "2", "train.tsv row 4"),
        ("none of which amounts to much", 0, "2", "train.tsv row 5"),
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_string_labels(suffix: str) -> None:
    write_rows(Path(f"a.{suffix}"), [{"text": "Good", "label": "pos"}, {"text": "Bad", "label": "neg"}])
    assert [row["label"] for row in read(f"a.{suffix}", labels={"pos": 1, "neg": 0})] == [1, 0]


def test_pattern_matches_files_in_order_with_relative_names() -> None:
    for name in ("b", "a", "c"):
        write_rows(Path(f"mine/{name}.csv"), [{"text": name, "label": 1}])
    assert [row["row"] for row in read("mine/*.csv")] == [f"mine/{name}.csv row 1" for name in "abc"]


def test_format_parameter_overrides_the_extension() -> None:
    write_rows(Path("a.tsv"), ROWS).rename("export.txt")
    assert len(read("export.txt", format="tsv")) == 3
    with pytest.raises(UserError, match=r"export\.txt: unknown file name extension; known: \.csv"):
        read("export.txt")


@pytest.mark.parametrize(
    ("suffix", "reader"), [("csv", delimited), ("jsonl", json_lines), ("parquet", parquet)]
)
def test_batches_are_bounded_and_rows_are_numbered(
    suffix: str, reader: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ROWS_PER_BATCH", 4)
    write_rows(Path(f"a.{suffix}"), [{"text": str(row), "label": row % 2} for row in range(1, 11)])
    source = FilesSource.model_validate(files_source(f"a.{suffix}"))
    batches = list(read_files(source))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [row["row"] for batch in batches for row in batch.to_pylist()] == [
        f"a.{suffix} row {row}" for row in range(1, 11)
    ]


@pytest.mark.parametrize("groups", [1, 20])
def test_parquet_batches_do_not_depend_on_row_groups(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was read before stays, nor is a row group taken whole."""
    monkeypatch.setattr(parquet, "ROWS_PER_BATCH", 20)
    texts = [np.random.default_rng(row).bytes(10_000).hex() for row in range(1_000)]
    table = pa.table({"text": texts, "label": [row % 2 for row in range(1_000)]})
    pq.write_table(table, "a.parquet", row_group_size=1_000 // groups, write_batch_size=20)
    del table
    before = pa.total_allocated_bytes()
    source = FilesSource.model_validate(files_source("a.parquet"))
    held = [pa.total_allocated_bytes() - before for _ in read_files(source)]
    assert len(held) == 50
    assert max(held) < 0.3 * Path("a.parquet").stat().st_size


def test_lone_surrogate_in_json_becomes_the_replacement_character() -> None:
    write_bytes(
        Path("a.jsonl"), b'{"text": "cut \\ud83c", "label": 1}\n{"text": "\\ud83c\\udfac", "label": 0}\n'
    )
    assert [row["text"] for row in read("a.jsonl")] == ["cut \ufffd", "🎬"]


def test_blank_lines_and_other_columns_are_ignored() -> None:
    write_bytes(Path("a.jsonl"), b'\n{"text": "Good", "label": 1, "more": {"stars": [1]}}\n  \n')
    assert [row["text"] for row in read("a.jsonl")] == ["Good"]


def test_text_column_may_be_the_group_column() -> None:
    write_rows(Path("a.csv"), [{"text": "Good", "label": "1"}])
    (row,) = read("a.csv", columns=Columns(text="text", label="label", group="text").model_dump())
    assert row["group"] == "Good"
