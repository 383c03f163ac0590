"""Reviews that can be read, but are invalid."""

from pathlib import Path
from typing import Any

from tests.data.invalid_sources import Case, Place, case
from tests.data.source_files import files_source, write_rows

UNLIMITED = {"imbalance": 0.5, "duplicates": 1.0}


def _rows(name: str, rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    write_rows(Path(name), rows)
    return {"sources": [files_source(name)], **changes}


def _among(title: str, text: str | None, reason: str, name: str = "a.jsonl", **checks: Any) -> Case:
    """Real reviews, and this one as the eighth row."""

    def prepare(place: Place) -> dict[str, Any]:
        rows = place.rows
        return _rows(name, [*rows[:7], {"text": text, "label": 1}, *rows[7:]], checks=checks)

    return case(title, prepare, "1 invalid row(s)", f"mine: {name} row 8: {reason}", rows_named=1)


def _one_side(place: Place) -> dict[str, Any]:
    """All bad reviews are of one film, so that they stand in one split."""
    rows = [
        {**row, "film": "x" if row["label"] == 0 else f"{number}"} for number, row in enumerate(place.rows)
    ]
    made = _rows("a.csv", rows, checks=UNLIMITED)
    made["sources"][0]["columns"]["group"] = "film"
    return made


def _few_positive(place: Place) -> dict[str, Any]:
    rows = place.rows
    return _rows("a.csv", [row for row in rows if row["label"] == 0] + rows[-25:])


def _edited_copies(place: Place) -> dict[str, Any]:
    """Every review stands in training too, with a sentence more."""
    write_rows(Path("a.csv"), place.rows)
    write_rows(Path("b.csv"), [{**row, "text": f"{row['text']} So much for it."} for row in place.rows])
    return {"sources": [files_source("a.csv", name="one"), files_source("b.csv", name="two", role="train")]}


def _two_sources(place: Place) -> dict[str, Any]:
    """Each is fine; together, every review stands twice."""
    for name in ("a.csv", "b.parquet"):
        write_rows(Path(name), place.rows)
    return {
        "sources": [files_source("a.csv", name="one"), files_source("b.parquet", name="two", role="train")]
    }


CASES = [
    _among("empty text", "", "no text"),
    _among("empty text in a CSV", "", "no text", name="a.csv"),
    _among("empty text in Parquet", "", "no text", name="a.parquet"),
    _among("null text", None, "no text"),
    _among("null text in Parquet", None, "no text", name="a.parquet"),
    _among("white space", " \t\n\u00a0\u2003", "no text"),
    _among("line breaks alone", "<br /><br/> <BR>", "no text"),
    _among("too short", "Meh", "shorter than 5 characters", min_characters=5),
    _among(
        "too short but for markup", "<br /><br /> Meh <br />", "shorter than 5 characters", min_characters=5
    ),
    _among("too long", "word " * 20_001, "longer than 100000 characters"),
    _among("control garbage", "\x00\x01\x02 fine \x7f", "more than 1.0% control or undecodable characters"),
    _among("undecodable garbage", "caf\ufffd cr\ufffdme", "more than 1.0% control or undecodable characters"),
    _among("halves of characters", "\ud83c\ud83c film", "more than 1.0% control or undecodable characters"),
    case(
        "many empty rows",
        lambda place: _rows("a.csv", place.rows + [{"text": "", "label": 0}] * 25),
        "25 invalid row(s); correct them, or set download.checks.bad_rows: quarantine",
        "mine: a.csv row 201: no text",
        rows_named=10,
    ),
    case(
        "empty rows of an archive's kind in two files",
        lambda place: (
            _rows("a.csv", [*place.rows, {"text": "<br />", "label": 1}])
            | {"sources": [files_source("*.csv", name="films")]}
        ),
        "films: a.csv row 201: no text",
        rows_named=1,
    ),
    case(
        "one class only",
        lambda place: _rows("a.csv", [row for row in place.rows if row["label"] == 1]),
        "the train split has",
        "with labels [1], but needs both 0 and 1",
    ),
    case("one class in a split", _one_side, "split has", "with labels [1], but needs both 0 and 1"),
    case("one review", lambda place: _rows("a.csv", place.rows[:1]), "split has", "needs both 0 and 1"),
    case(
        "every label dropped",
        lambda place: (
            _rows("a.csv", place.rows, limit=100)
            | {"sources": [files_source("a.csv", labels={"0": None, "1": None})]}
        ),
        "the train split has 0 review(s) with labels []",
    ),
    case(
        "every row quarantined",
        lambda _: _rows("a.jsonl", [{"text": "", "label": 1}] * 30, checks={"bad_rows": "quarantine"}),
        "the train split has 0 review(s)",
    ),
    case(
        "only reviews that train",
        lambda place: _rows("a.csv", place.rows) | {"sources": [files_source("a.csv", role="train")]},
        "the validation split has 0 review(s)",
    ),
    case(
        "duplicates past the limit",
        lambda place: _rows("a.csv", place.rows + place.rows),
        "are duplicates, more than download.checks.duplicates (5.0%)",
        "mine: a.csv row ",
        rows_named=10,
    ),
    case("duplicates from two sources", _two_sources, "are duplicates", "two: b.parquet row ", rows_named=10),
    case(
        "a duplicate where none may be",
        lambda place: _rows(
            "a.csv", [{"text": "The very same.", "label": 1}] * 40 + place.rows, checks={"duplicates": 0}
        ),
        "more than download.checks.duplicates (0.0%)",
    ),
    case(
        "near-duplicates past the limit",
        _edited_copies,
        "100.0% of the test reviews have a near-duplicate in another split, more than "
        "download.checks.near_duplicates.max_share (1.0%)",
        "two: b.csv row ",
        "(train) has similarity 0.9",
        rows_named=10,
    ),
    case(
        "imbalance past the limit",
        _few_positive,
        "which differs from 50% by more than download.checks.imbalance (20.0%)",
    ),
]
