"""Values of every JSON and Parquet type have one canonical text or are rejected."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource
from tests.data.source_files import files_source, write_bytes

Row = tuple[str | None, int, str | None]
GROUPED = {"text": "text", "label": "label", "group": "group"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def read(name: str, **changes: Any) -> list[Row]:
    source = FilesSource.model_validate(files_source(name, **{"columns": GROUPED, **changes}))
    return [
        (row["text"], row["label"], row["group"]) for batch in read_files(source) for row in batch.to_pylist()
    ]


def read_parquet(**columns: Any) -> list[Row]:
    pq.write_table(
        pa.table({"text": ["A", "B"], "label": [1, 0], "group": ["x", "y"], **columns}), "a.parquet"
    )
    return read("a.parquet")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 0, None], pa.int64()),
        pa.array([1, 0, None], pa.uint8()),
        pa.array([1, 0, None], pa.float64()),
        pa.array([1, 0, None], pa.float32()),
        pa.array([1, 0, None], pa.float32()).cast(pa.float16()),
        pa.array([1, 0, float("nan")], pa.float64()),
        pa.array([Decimal("1.00"), Decimal("0.00"), None], pa.decimal128(5, 2)),
        pa.array(["1", "0.0", " "]),
        pa.array(["1.00", "0", None], pa.large_string()),
        pa.array(["1", "0", ""], pa.string_view()),
        pa.array([b"1", b"0", None], pa.binary()),
        pa.array(["1", "0", None]).dictionary_encode(),
        pa.array([1.0, 0.0, None]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_number_is_one_label_in_every_parquet_type(values: pa.Array) -> None:
    groups = read_parquet(text=["A", "B", "C"], label=[1, 0, 0], group=values)
    assert groups == [("A", 1, "1"), ("B", 0, "0"), ("C", 0, None)]
    labels = read_parquet(label=values.slice(0, 2))
    assert [label for _, label, _ in labels] == [1, 0]


@pytest.mark.parametrize("value", ["1", "1.0", '"1"', '"1.00"', "1e0", "10E-1"])
def test_number_is_one_label_in_every_json_notation(value: str) -> None:
    line = f'{{"text": "A", "label": {value}, "group": {value}}}\n'
    assert read(str(write_bytes(Path("a.jsonl"), line.encode()))) == [("A", 1, "1")]


def test_number_is_one_label_in_every_csv_notation() -> None:
    content = b"text,label,group\nA,1,7\nB,1.0,7.0\nC,1.00, 7 \nD,1,007\nE,1,7e0\nF,1,\n"
    assert [group for _, _, group in read(str(write_bytes(Path("a.csv"), content)))] == [
        *("7", "7", "7", "007", "7e0"),
        None,
    ]


@pytest.mark.parametrize("key", [1, 1.0, "1", "1.0"])
def test_label_key_is_canonical_in_every_notation(key: Any) -> None:
    content = b"text,label,group\nA,1,\nB,1.0,\n"
    assert len(read(str(write_bytes(Path("a.csv"), content)), labels={key: 1})) == 2


def test_booleans_are_labels_in_json_notation() -> None:
    pq.write_table(pa.table({"text": ["A", "B"], "label": [True, False], "group": [True, None]}), "a.parquet")
    Path("a.jsonl").write_text('{"text": "A", "label": true, "group": true}\n')
    labels = {True: 1, False: 0}
    assert read("a.parquet", labels=labels) == [("A", 1, "true"), ("B", 0, None)]
    assert read("a.jsonl", labels=labels) == [("A", 1, "true")]


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["A", None], pa.large_string()),
        pa.array(["A", None], pa.string_view()),
        pa.array([b"A", None], pa.large_binary()),
        pa.array(["A", None]).dictionary_encode(),
    ],
    ids=lambda texts: str(texts.type),
)
def test_parquet_text_may_have_any_string_type(texts: pa.Array) -> None:
    assert [text for text, _, _ in read_parquet(text=texts)] == ["A", None]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("text", [1, 2], "the column text is of type int64, expected strings"),
        ("text", [True, False], "the column text is of type bool, expected strings"),
        ("text", [1.5, 2.5], "the column text is of type double, expected strings"),
        ("text", [["A"], ["B"]], "the column text is of type list<"),
        ("text", [{"title": "A"}] * 2, "the column text is of type struct<"),
        ("label", [[1], [0]], "the column label is of type list<"),
        ("group", [{"film": 1}] * 2, "the column group is of type struct<"),
        ("text", pa.array([b"Sch\xf6n", b"B"]), "not UTF-8 text"),
        ("label", pa.array([1.0, float("nan")]), "a.parquet row 2: no label"),
    ],
)
def test_parquet_text_of_another_type_is_an_error(column: str, values: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_parquet(**{column: values})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"text": ["A"], "label": 1', "row 2, line 3: expected text to be a string, found a list"),
        ('"text": {}, "label": 1', "row 2, line 3: expected text to be a string, found an object"),
        ('"text": false, "label": 1', "row 2, line 3: expected text to be a string, found a boolean"),
        ('"text": 12, "label": 1', "row 2, line 3: expected text to be a string, found a number"),
        (
            '"text": "A", "label": [1]',
            "row 2, line 3: expected label to be a string, a number or a boolean, found a list",
        ),
        (
            '"text": "A", "label": {"is": 1}',
            "row 2, line 3: expected label to be a string, a number or a boolean, found an object",
        ),
        (
            '"text": "A", "label": 1, "group": [1]',
            "row 2, line 3: expected group to be a string, a number or a boolean, found a list",
        ),
        (
            '"text": "A", "text": "B", "label": 1',
            "line 3: invalid JSON: duplicate key 'text'",
        ),
        ('"text": "A", "label": 1, "more": {"a": 1, "a": 2}', "line 3: invalid JSON: duplicate key 'a'"),
        ('"text": "A", "label": NaN', "line 3: invalid JSON: NaN is not a JSON number"),
        ('"text": "A", "label": -Infinity', "line 3: invalid JSON: -Infinity is not a JSON number"),
        ('"text": "A", "label": 1e999', "a.jsonl row 2: label '1E+999' is not one of the keys"),
        ('"text": \'A\', "label": 1', "line 3: invalid JSON: Expecting value"),
    ],
)
def test_ambiguous_json_is_an_error(fields: str, message: str) -> None:
    lines = '{"text": "A", "label": 1, "group": null}\n\n' + "{" + f'"group": "x", {fields}' + "}\n"
    if '"group"' in fields:
        lines = lines.replace('"group": "x", ', "")
    with pytest.raises(UserError) as raised:
        read(str(write_bytes(Path("a.jsonl"), lines.encode())))
    assert message in str(raised.value)


def test_null_text_in_json_is_left_to_validation() -> None:
    assert read(str(write_bytes(Path("a.jsonl"), b'{"text": null, "label": 1, "group": ""}\n'))) == [
        (None, 1, None)
    ]


def test_byte_order_mark_and_windows_line_endings_in_json_are_ignored() -> None:
    line = json.dumps({"text": "A", "label": 1, "group": 7}).encode()
    assert (
        read(str(write_bytes(Path("a.jsonl"), b"\xef\xbb\xbf" + line + b"\r\n" + line)))
        == [("A", 1, "7")] * 2
    )


def test_line_of_many_megabytes_is_an_error() -> None:
    line = json.dumps({"text": "x" * 20_000_000, "label": 1, "group": None}).encode()
    with pytest.raises(
        UserError, match=r"a\.jsonl, line 1: more than 16,777,216 bytes, too long for a review"
    ):
        read(str(write_bytes(Path("a.jsonl"), line)))


PLAIN = b"text,label,group\nA fine film,1,\nA waste of time,0,\n"


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(PLAIN) + b"\0" * 512,
        gzip.compress(PLAIN[:20]) + b"\0" * 3 + gzip.compress(PLAIN[20:]) + b"\0",
        gzip.compress(b"") + gzip.compress(PLAIN),
    ],
    ids=["zeros behind it", "two members with zeros", "an empty member"],
)
def test_gzip_members_and_padding_are_read(content: bytes) -> None:
    Path("a.csv.gz").write_bytes(content)
    assert [text for text, _, _ in read("a.csv.gz")] == ["A fine film", "A waste of time"]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_truncated_compressed_file_is_an_error(suffix: str) -> None:
    whole = write_bytes(Path(f"whole.csv.{suffix}"), PLAIN).read_bytes()
    path = Path(f"a.csv.{suffix}")
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"a\.csv\.{suffix}: "):
            read(path.name)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_file_with_trailing_data_is_an_error(suffix: str) -> None:
    whole = write_bytes(Path(f"a.csv.{suffix}"), PLAIN).read_bytes()
    Path(f"a.csv.{suffix}").write_bytes(whole + b"A,1,\n")
    with pytest.raises(UserError, match="truncated, corrupt or of another format"):
        read(f"a.csv.{suffix}")
