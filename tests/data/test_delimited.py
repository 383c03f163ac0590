"""CSV and TSV files are read correctly or rejected with row, line and cause."""

import csv
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sentiment.data import delimited as lines
from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource
from tests.data.source_files import files_source, write_bytes

Found = list[tuple[str, int]]
ORDERS = [["text", "label"], ["label", "text"], ["id", "label", "text"], ["id", "text", "label"]]
DELIMITERS = {"csv": ",", "tsv": "\t"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def read(name: str, **changes: Any) -> Found:
    source = FilesSource.model_validate(files_source(name, **changes))
    return [(row["text"], row["label"]) for batch in read_files(source) for row in batch.to_pylist()]


def written(content: str | bytes, name: str = "a.csv", **changes: Any) -> Found:
    write_bytes(Path(name), content.encode() if isinstance(content, str) else content)
    return read(name, **changes)


@pytest.mark.parametrize("suffix", DELIMITERS)
@pytest.mark.parametrize("order", ORDERS, ids=",".join)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_line_breaks_and_delimiters_inside_quotes_are_read(
    suffix: str, order: list[str], quoting: Any, reviews: pa.Table
) -> None:
    rows = [
        {"text": row["text"].replace(". ", ".\r\n\r\n"), "label": row["label"], "id": number}
        for number, row in enumerate(reviews.to_pylist())
    ]
    with Path(f"a.{suffix}").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, order, extrasaction="ignore", delimiter=DELIMITERS[suffix], quoting=quoting
        )
        writer.writeheader()
        writer.writerows(rows)
    assert read(f"a.{suffix}") == [(row["text"], row["label"]) for row in rows]


def _unquoted(random_: random.Random, reviews: list[dict[str, Any]], delimiter: str) -> list[tuple[str, int]]:
    """Return some rows as a file that quotes nothing has them: with quotes where writers put them."""
    rows = []
    for row in random_.sample(reviews, random_.randint(2, 60)):
        text = row["text"].replace(delimiter, "")[: random_.randint(10, 300)].strip()
        shapes = [text] * 16 + [f'"{text}', f'{text}"', f'"{text}"', '""', '"', f'""{text}', f'"{text}""']
        rows.append((random_.choice(shapes), row["label"]))
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_unquoted_file_never_loses_a_row_or_a_label(seed: int, reviews: pa.Table) -> None:
    random_ = random.Random(seed)  # noqa: S311
    refusals = []
    for _ in range(25):
        suffix, order = random_.choice(list(DELIMITERS)), random_.choice(ORDERS)
        delimiter = DELIMITERS[suffix]
        rows = _unquoted(random_, reviews.to_pylist(), delimiter)
        written_rows = [
            delimiter.join(str({"text": text, "label": label, "id": number}[column]) for column in order)
            for number, (text, label) in enumerate(rows)
        ]
        content = "\n".join([delimiter.join(order), *written_rows]) + "\n"
        assert written(content, f"a.{suffix}", quoting="none") == rows
        try:
            found = read(f"a.{suffix}")
        except UserError as error:
            refusals.append(str(error))
        else:
            assert [label for _, label in found] == [label for _, label in rows]
    assert len(refusals) > 5
    assert all("quoting: none" in refusal for refusal in refusals)


HEAD = "text,label\n"
SWALLOWED = 'text\tlabel\n"Oh\t1\nA, longer, row\t0\nragged\nno"\t0\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + 'A,1\n"B,0\nC,1\n', "a.csv row 2, lines 3 to 4: a quote is never closed"),
        (HEAD + '"A" b,1\n', "row 1, line 2: text between a closing quote and the next delimiter"),
        (
            HEAD + '"A\nB,1\nC",1\n',
            "row 1, lines 2 to 4: a quoted field has line breaks, and its lines look",
        ),
        (HEAD + '"A,1\nC",1\n', "row 1, lines 2 to 3: a quoted field has line breaks"),
        (HEAD + '\n\n"A",1\n\nB\n', "row 2, line 6: 1 field(s), but the header has 2"),
        (HEAD + "A,1,\n", "row 1, line 2: 3 field(s), but the header has 2"),
        (HEAD + '"A,1\n"', "a.csv"),
        ('text,"label\nA,1\n', "a.csv header, lines 1 to 2: a quote is never closed"),
        ("text,label,text\nA,1,B\n", "more than one column text"),
        (",text,label,\nA,1\n", "row 1, line 2: 2 field(s), but the header has 4"),
        ("te\0xt,label\nA,1\n", "not UTF-8 text: NUL bytes in the header"),
        (HEAD.encode() + b"A,1\nSch\xf6n,1\n", "a.csv, line 3: not UTF-8 text (byte 0xf6)"),
        ((HEAD + "A,1\n").encode("utf-16"), "not UTF-8 text"),
        ((HEAD + "A,1\n").encode("utf-16-le"), "not UTF-8 text"),
        ("", "a.csv: the file is empty (0 bytes)"),
        ("\n\n", "a.csv: the file is empty, the header is missing"),
        (HEAD + "A\rB,1\n", "row 1, line 2: 1 field(s)"),
        (HEAD + " \nA,1\n", "row 1, line 2: 1 field(s)"),
    ],
)
def test_ambiguous_or_malformed_file_is_an_error(content: str | bytes, message: str) -> None:
    with pytest.raises(UserError) as raised:
        written(content)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cell", ["1 ", ""], ids=["a space behind the label", "no label"])
def test_row_inside_a_quoted_field_is_detected(cell: str) -> None:
    write_bytes(Path("a.tsv"), f'text\tlabel\n"Great\t{cell}\nbad"\t0\nc\t1\n'.encode())
    with pytest.raises(UserError, match="row 1"):
        list(read_files(FilesSource.model_validate(files_source("a.tsv"))))


def test_rows_inside_a_quoted_field_are_detected_if_some_are_ragged() -> None:
    with pytest.raises(UserError, match=r"row 1, lines 2 to 5: a quoted field has line breaks.*minimal"):
        written(SWALLOWED, "a.tsv")
    assert written(SWALLOWED, "a.tsv", quoting="minimal") == [("Oh\t1\nA, longer, row\t0\nragged\nno", 0)]


@pytest.mark.parametrize("quoting", [None, "minimal", "none"])
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (HEAD.replace("\n", "\r\n") + "A,1\r\nB,0\r\n", [("A", 1), ("B", 0)]),
        ("text,label\rA,1\rB,0\r", [("A", 1), ("B", 0)]),
        ("\ufeff" + HEAD + "A,1", [("A", 1)]),
        (",text,label,,\n0,A,1,,\n", [("A", 1)]),
        (HEAD + "A\0B,1\n", [("A\0B", 1)]),
        (HEAD + "One\u2028two\x85three\x0cfour,1\n", [("One\u2028two\x85three\x0cfour", 1)]),
        (HEAD + 'He said "no",1\n', [('He said "no"', 1)]),
        (HEAD + "C:\\,1\n", [("C:\\", 1)]),
    ],
)
def test_line_endings_and_other_quotation_marks_are_read(
    content: str, rows: Found, quoting: str | None
) -> None:
    assert written(content, quoting=quoting) == rows


@pytest.mark.parametrize(
    ("content", "rows", "changes"),
    [
        (HEAD + '"a ""b"" c",1\n', [('a "b" c', 1)], {}),
        (HEAD + "'a, ''b''',1\n\"c,0\n", [("a, 'b'", 1), ('"c', 0)], {"quote_character": "'"}),
        (HEAD + '"a \\" b \\\\",1\n', [('a " b \\', 1)], {"escape_character": "\\"}),
        (HEAD + "a\\, b,1\n", [("a, b", 1)], {"escape_character": "\\", "quoting": "none"}),
        (HEAD + "a^, b,1\n", [("a, b", 1)], {"escape_character": "^"}),
        (HEAD + '"a\nb,1\nc",0\n', [("a\nb,1\nc", 0)], {"quoting": "minimal"}),
        (HEAD + '"",1\n"a"",0\n', [('""', 1), ('"a""', 0)], {"quoting": "none"}),
    ],
)
def test_quoting_parameters_are_applied(content: str, rows: Found, changes: dict[str, Any]) -> None:
    assert written(content, **changes) == rows


@pytest.mark.parametrize("quoting", [None, "minimal", "none"])
def test_field_of_ten_megabytes_is_an_error(quoting: str | None) -> None:
    message = r"a\.csv row 2, line 3: a row of more than 4,000,000 characters, too long for a review"
    with pytest.raises(UserError, match=message):
        written(HEAD + "A,1\n" + "x" * 10_000_000 + ",1\n", quoting=quoting)


def test_unclosed_quote_is_an_error_with_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_CHARACTERS", 10_000)
    message = r"row 1, lines 2 to [0-9]+: a field of more than .* a quote may be unclosed; .*quoting: none"
    with pytest.raises(UserError, match=message) as raised:
        written(HEAD + '"A,1\n' + "B,0\n" * 100_000)
    last = int(str(raised.value).partition(" to ")[2].partition(":")[0])
    assert last < 3_000


def test_quoting_of_json_lines_is_an_error() -> None:
    with pytest.raises(UserError, match=r"a\.jsonl: quoting, quote_character .* apply to CSV and TSV"):
        written('{"text": "A", "label": 1}\n', "a.jsonl", quoting="none")
