"""Regression tests with small files that were misread without an error (`cases/`)."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sentiment.data.review_files import read_files
from sentiment.data.splits import split_by_hash
from sentiment.errors import UserError
from sentiment.params.data import SplitFractions
from sentiment.params.sources import FilesSource
from tests.data.source_files import files_source

CASES = Path(__file__).parent / "cases"
NUMBERED = {"text": "review", "label": "sentiment"}
SENTENCES = {"text": "sentence", "label": "label"}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(CASES)


def source(*paths: str, **changes: Any) -> FilesSource:
    return FilesSource.model_validate(files_source(*paths, **changes))


def read(*paths: str, **changes: Any) -> list[dict[str, Any]]:
    return [row for batch in read_files(source(*paths, **changes)) for row in batch.to_pylist()]


def refusal(*paths: str, **changes: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(*paths, **changes)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "columns", "rows", "first_text"),
    [
        ("unquoted_leading_quote.tsv", {"text": "text", "label": "label"}, 5, '"Great thing, that one'),
        ("glue_like.tsv", SENTENCES, 6, '"it is a film'),
    ],
)
def test_unquoted_file_is_read_with_quoting_none(
    name: str, columns: dict[str, str], rows: int, first_text: str
) -> None:
    found = read(name, columns=columns, quoting="none")
    assert [row["label"] for row in found] == [
        int(re.findall(r"^[01]|[01]$", line)[0]) for line in Path(name).read_text().splitlines()[1:]
    ]
    assert len(found) == rows
    assert found[0]["text"] == first_text


def test_stray_quotes_are_read_with_quoting_none() -> None:
    found = read("stray.csv", quoting="none")
    assert [row["text"] for row in found] == ['"Great thing', "dull", '"so so" they say', "fine"]


@pytest.mark.parametrize("quoting", [None, "minimal"])
@pytest.mark.parametrize(
    ("name", "columns", "row"),
    [
        ("unquoted_leading_quote.tsv", {"text": "text", "label": "label"}, "row 1, lines 2 to 5"),
        ("glue_like.tsv", SENTENCES, "row 1, lines 2 to 4"),
        ("stray.csv", {"text": "text", "label": "label"}, "row 1, lines 2 to 4"),
        ("escaped_quotes.tsv", NUMBERED, "row 1, line 2"),
        ("backslash.tsv", NUMBERED, "row 1, line 2"),
    ],
)
def test_ambiguous_quotes_are_an_error_with_row_and_hint(
    name: str, columns: dict[str, str], row: str, quoting: str | None
) -> None:
    message = refusal(name, columns=columns, quoting=quoting)
    assert message.startswith(f"{name} {row}: text between a closing quote and the next delimiter")
    assert "escape_character" in message
    assert ("quoting: none" in message) == (quoting is None)


@pytest.mark.parametrize("quoting", [None, "minimal"])
def test_escaped_quotes_are_read(quoting: str | None) -> None:
    found = read("backslash.tsv", columns=NUMBERED, escape_character="\\", quoting=quoting)
    assert [(row["text"], row["label"]) for row in found] == [
        ('He said "great" and left."', 1),
        ("A dull film", 0),
        ("It is 6'2\"", 1),
        ("Dull again", 0),
    ]
    many = read("escaped_quotes.tsv", columns=NUMBERED, escape_character="\\", quoting=quoting)
    lines = Path("escaped_quotes.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row["text"] for row in many] == [line.split("\t")[2][1:-1].replace('\\"', '"') for line in lines]


def test_empty_group_cell_is_no_group() -> None:
    columns = {"text": "text", "label": "label", "group": "film"}
    batches = list(read_files(source("group_half_empty.csv", columns=columns)))
    groups = [row["group"] for batch in batches for row in batch.to_pylist()]
    assert groups[::2] == [f"tt{row}" for row in range(0, 40, 2)]
    assert groups[1::2] == [None] * 20
    shares = SplitFractions(train=0.4, validation=0.2, holdout=0.1, test=0.3)
    split = [row["split"] for batch in split_by_hash(batches, shares, 42) for row in batch.to_pylist()]
    assert len(set(split[1::2])) > 2


def test_group_is_equal_for_all_json_types() -> None:
    found = read("group_types.jsonl", columns={"text": "text", "label": "label", "group": "g"})
    assert [row["group"] for row in found] == ["1", "1", "1", None, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (1, "row 1, line 1: expected text to be a string, found a list"),
        (2, "row 1, line 1: expected text to be a string, found an object"),
        (3, "row 1, line 1: expected text to be a string, found a boolean"),
        (4, "line 1: invalid JSON: NaN is not a JSON number"),
        (5, "row 1, line 1: expected text to be a string, found a number"),
    ],
)
def test_json_text_that_is_not_a_string_is_an_error(line: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text((CASES / "text_list.jsonl").read_text().splitlines()[line - 1] + "\n")
    assert message in refusal(str(path))


def test_file_whose_name_is_a_pattern_is_read() -> None:
    (row,) = read("neighbours/a [1].csv")
    assert (row["text"], row["row"]) == ("The one that was named", "neighbours/a [1].csv row 1")


def test_label_in_two_notations_is_an_error() -> None:
    assert len(read("labels_dup.csv", labels={1: 1})) == 1
    with pytest.raises(ValidationError, match="duplicate label 1, written in two notations"):
        source("labels_dup.csv", labels={1: 1, "1": 0})


def test_gzip_padded_with_zeros_is_read() -> None:
    assert [(row["text"], row["label"]) for row in read("padded.csv.gz")] == [("Good", 1), ("Bad", 0)]
