"""Build of the splits: no row is lost or counted twice, and the test split does not change."""

import csv
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.data.removal import compute_keys
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams
from tests.data.archives import imdb_members, write_archive
from tests.data.source_files import download_section, files_source, write_rows


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def halves(reviews: pa.Table) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every other review, and the rest; both have as many of each label."""
    rows = reviews.to_pylist()
    return rows[::2], rows[1::2]


def gathered(*sources: dict[str, Any], **changes: Any) -> dict[str, Any]:
    # A few dozen reviews are balanced by chance alone.
    checks = {"imbalance": 0.5, **changes.pop("checks", {})}
    section = download_section(sources=list(sources), checks=checks, **changes)
    return build_splits(DownloadParams.model_validate(section))


def rows_in(*splits: paths.Split) -> Iterator[dict[str, Any]]:
    for split in splits or (*paths.LABELLED_SPLITS, "unlabelled"):
        yield from pq.read_table(paths.reviews(split)).to_pylist()


def test_two_sources_are_merged_with_their_names(
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    for name, rows in zip(("one", "two"), halves, strict=True):
        write_rows(Path(f"{name}.csv"), rows)
    metrics = gathered(files_source("one.csv", name="one"), files_source("two.csv", name="two"))
    found = list(rows_in())
    for name, rows in zip(("one", "two"), halves, strict=True):
        of_source = {row["row"]: (row["text"], row["label"]) for row in found if row["source"] == name}
        assert of_source == {
            f"{name}.csv row {number}": (row["text"], row["label"]) for number, row in enumerate(rows, 1)
        }
    assert metrics["sources"] == {name: {"rows": 100, "quarantined": 0} for name in ("one", "two")}
    assert sum(metrics[split]["reviews"] for split in paths.LABELLED_SPLITS) == 200


def test_training_reviews_do_not_change_the_test_file(
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    """Even if they duplicate evaluation reviews, which are dropped from train, not from test."""
    old, new = halves
    write_rows(Path("old.csv"), old)
    gathered(files_source("old.csv", name="old"))
    before = {split: paths.reviews(split).read_bytes() for split in paths.LABELLED_SPLITS}
    held_out = [{key: row[key] for key in ("text", "label")} for row in rows_in("test", "holdout")]
    write_rows(Path("new.jsonl"), held_out[:3] + new)
    metrics = gathered(
        files_source("new.jsonl", name="new", role="train"), files_source("old.csv", name="old")
    )
    for split in ("test", "holdout", "validation"):
        assert paths.reviews(split).read_bytes() == before[split]
    assert {row["source"] for row in rows_in("train")} == {"old", "new"}
    assert metrics["dropped_duplicates"]["train"] == 3


def test_added_reviews_do_not_move_existing_ones(
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    old, new = halves
    write_rows(Path("a.csv"), old)
    gathered(files_source("a.csv"))
    before = {split: {row["text"] for row in rows_in(split)} for split in paths.LABELLED_SPLITS}
    write_rows(Path("a.csv"), new + old)
    gathered(files_source("a.csv"))
    for split, texts in before.items():
        assert texts <= {row["text"] for row in rows_in(split)}


def test_archive_keeps_its_test_half_and_splits_by_film(reviews: pa.Table) -> None:
    write_archive(Path("a.tar.gz"), imdb_members(reviews))
    gathered(
        {"kind": "imdb", "urls": ["a.tar.gz"], "checksum": None},
        split={"train": 0.4, "validation": 0.2, "holdout": 0.2, "test": 0.2},  # there are few films
        checks={"imbalance": 0.5, "duplicates": 1.0},
    )
    assert {row["row"].split("/")[1] for row in rows_in("test")} == {"test"}
    assert {row["row"].split("/")[1] for row in rows_in("train", "validation", "holdout")} == {"train"}
    splits = ("train", "validation", "holdout")
    films = [{row["group"] for row in rows_in(split)} for split in splits]
    assert all(films)
    assert not any(one & other for one, other in itertools.combinations(films, 2))
    assert not [row for row in rows_in("unlabelled") if row["label"] is not None]


def test_invalid_rows_are_quarantined(reviews: pa.Table) -> None:
    rows = [*reviews.to_pylist(), {"text": " <br /> ", "label": 1}, {"text": "\x00" * 9, "label": 0}]
    write_rows(Path("a.jsonl"), rows)
    metrics = gathered(files_source("a.jsonl"), checks={"bad_rows": "quarantine"})
    assert metrics["sources"]["mine"] == {"rows": 202, "quarantined": 2}
    assert len(list(rows_in())) == 200
    with paths.QUARANTINE.open(newline="") as file:
        assert [(row["source"], row["row"], row["reason"]) for row in csv.DictReader(file)] == [
            ("mine", "a.jsonl row 201", "no text"),
            ("mine", "a.jsonl row 202", "more than 1.0% control or undecodable characters"),
        ]


def test_output_is_deterministic_and_no_spool_remains(reviews: pa.Table) -> None:
    write_rows(Path("a.parquet"), reviews.to_pylist())
    made = []
    for _ in range(2):
        gathered(files_source("a.parquet"))
        made.append({path: path.read_bytes() for path in Path().rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert sorted(path.name for path in paths.REVIEWS.iterdir()) == [
        "holdout.parquet",
        "recent.parquet",
        "test.parquet",
        "train.parquet",
        "unlabelled.parquet",
        "validation.parquet",
    ]


def test_file_in_two_sources_is_an_error(reviews: pa.Table) -> None:
    write_rows(Path("mine/a.csv"), reviews.to_pylist())
    with pytest.raises(
        UserError, match=r"mine/a\.csv: matched twice, by one: mine/a\.csv and by two: mine/\*"
    ):
        gathered(files_source("mine/a.csv", name="one"), files_source("mine/*", name="two", role="train"))


def test_conflicting_labels_are_dropped_and_listed(reviews: pa.Table) -> None:
    rows = reviews.to_pylist()
    write_rows(Path("a.jsonl"), rows)
    gathered(files_source("a.jsonl"))
    known = {split: next(rows_in(split)) for split in ("test", "train")}
    test = paths.reviews("test").read_bytes()
    opposite = [
        {"text": row["text"].upper(), "label": 1 - row["label"]} for row in (known["test"], known["train"])
    ]
    write_rows(Path("b.jsonl"), opposite)
    metrics = gathered(files_source("b.jsonl", name="b", role="train"), files_source("a.jsonl"))
    assert metrics["conflicting_labels"] == {
        "test": 1,
        "holdout": 0,
        "validation": 0,
        "recent": 0,
        "train": 3,
        "unlabelled": 0,
    }
    assert metrics["dropped_duplicates"] == {
        "test": 0,
        "holdout": 0,
        "validation": 0,
        "recent": 0,
        "train": 3,
        "unlabelled": 0,
    }
    assert paths.reviews("test").read_bytes() == test
    assert known["train"]["text"] not in {row["text"] for row in rows_in("train", "validation", "holdout")}
    with paths.QUARANTINE.open(newline="") as file:
        assert [(row["source"], row["row"], row["reason"]) for row in csv.DictReader(file)] == [
            ("b", "b.jsonl row 1", "equal texts have different labels"),
            ("b", "b.jsonl row 2", "equal texts have different labels"),
            ("mine", known["train"]["row"], "equal texts have different labels"),
        ]


def test_near_duplicates_of_test_reviews_are_counted_and_listed(reviews: pa.Table) -> None:
    write_rows(Path("a.jsonl"), reviews.to_pylist())
    gathered(files_source("a.jsonl"))
    tested = next(rows_in("test"))
    write_rows(Path("b.jsonl"), [{"text": f"{tested['text']} Seen twice.", "label": tested["label"]}])
    sources = files_source("a.jsonl"), files_source("b.jsonl", name="b", role="train")
    metrics = gathered(*sources, checks={"near_duplicates": {"similarity": 0.5, "max_share": 0.5}})
    share = metrics["near_duplicates"].pop("test_fraction")
    assert share == round(1 / metrics["test"]["reviews"], 6)
    assert 0.9 < metrics["near_duplicates"].pop("max_similarity") < 1
    assert metrics["near_duplicates"] == {"test_reviews": 1, "undecided": 0, "pairs": {"train": 1}}
    with paths.NEAR_DUPLICATES.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["test_source"], row["test_row"]) == ("mine", tested["row"])
    assert (row["split"], row["source"], row["row"]) == ("train", "b", "b.jsonl row 1")


def test_near_duplicate_search_can_be_disabled(reviews: pa.Table) -> None:
    write_rows(Path("a.jsonl"), reviews.to_pylist())
    metrics = gathered(files_source("a.jsonl"), checks={"near_duplicates": None})
    assert "near_duplicates" not in metrics
    assert paths.NEAR_DUPLICATES.read_text() == "similarity,test_source,test_row,split,source,row\n"


def incoming_source(**changes: Any) -> dict[str, Any]:
    """A source of the files in data/incoming, with role `train`."""
    own = {"kind": "incoming", "name": "incoming", "role": "train"}
    return {**files_source("data/incoming/*"), **own, **changes}


def test_share_of_incoming_reviews_is_recent_and_in_no_other_split(
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    old, new = halves
    write_rows(Path("old.csv"), old)
    assert gathered(incoming_source(), files_source("old.csv"), recent=0.3)["recent"] == {"reviews": 0}
    before = {split: paths.reviews(split).read_bytes() for split in paths.LABELLED_SPLITS}
    # The copy of a known training review stays one, unless it becomes a recent one.
    known = list(rows_in("train"))
    write_rows(Path("data/incoming/new.csv"), new + [{key: row[key] for key in old[0]} for row in known])
    metrics = gathered(incoming_source(), files_source("old.csv"), recent=0.3, checks={"duplicates": 1.0})
    for split in ("test", "holdout", "validation"):
        assert paths.reviews(split).read_bytes() == before[split]
    recent = {row["text"] for row in rows_in("recent")}
    assert 0.15 < len(recent) / (len(new) + len(known)) < 0.45
    assert metrics["recent"]["reviews"] == len(recent)
    assert not recent & {row["text"] for row in rows_in("train", "validation", "holdout", "test")}
    assert recent & {row["text"] for row in known}
    assert {row["text"] for row in rows_in("train", "recent")} == {row["text"] for row in known + new}


def test_incoming_reviews_of_all_roles_are_held_out_of_train_alone(reviews: pa.Table) -> None:
    write_rows(Path("data/incoming/a.csv"), reviews.to_pylist())
    splits = []
    for share in (0, 0.5):
        gathered(incoming_source(role="all"), recent=share)
        splits.append({split: {row["text"] for row in rows_in(split)} for split in paths.LABELLED_SPLITS})
    assert all(splits[0][split] == splits[1][split] for split in ("test", "holdout", "validation"))
    recent = {row["text"] for row in rows_in("recent")}
    assert splits[1]["train"] | recent == splits[0]["train"]
    assert recent


def test_listed_reviews_are_dropped_from_all_splits_but_test(
    reviews: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    rows = reviews.to_pylist()
    write_rows(Path("a.jsonl"), rows)
    gathered(files_source("a.jsonl"))
    of_split = {split: next(rows_in(split))["text"] for split in paths.LABELLED_SPLITS}
    paths.REMOVED.parent.mkdir(exist_ok=True)
    keys = compute_keys([text.upper() for text in of_split.values()])
    paths.REMOVED.write_text("# why\n\n" + "".join(f"{key}  # asked for\n" for key in keys))
    opposite = [{"text": of_split["train"], "label": 1 - rows[0]["label"]}, {"text": "\x00" * 9, "label": 0}]
    invalid, listed = compute_keys(["\x00" * 9])[0], paths.REMOVED.read_text()
    paths.REMOVED.write_text(f"{listed}{invalid}\n")
    write_rows(Path("b.jsonl"), opposite)
    with caplog.at_level(logging.WARNING):
        metrics = gathered(files_source("a.jsonl"), files_source("b.jsonl", name="b", role="train"))
    assert metrics["removed"] == {"holdout": 1, "validation": 1, "recent": 0, "train": 3, "unlabelled": 0}
    assert {row["text"] for row in rows_in()} == {row["text"] for row in rows} - {
        of_split[split] for split in ("train", "validation", "holdout")
    }
    assert "1 of the listed reviews are in the test split and remain there" in caplog.text
    assert paths.QUARANTINE.read_text().count("\n") == 1  # the header: no output has a listed text


def test_duplicates_of_test_reviews_are_counted(reviews: pa.Table) -> None:
    write_rows(Path("a.jsonl"), reviews.to_pylist())
    gathered(files_source("a.jsonl"))
    copies = [{key: row[key] for key in ("text", "label")} for row in rows_in("test", "train")]
    tested = sum(1 for _ in rows_in("test"))
    write_rows(Path("b.jsonl"), copies)
    metrics = gathered(
        files_source("a.jsonl"), files_source("b.jsonl", name="b", role="train"), checks={"duplicates": 1.0}
    )
    assert metrics["dropped_duplicates"]["train"] == len(copies)
    assert metrics["duplicates_of_test"]["train"] == tested


def test_incoming_file_is_read_by_the_source_with_the_most_specific_path(
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    plain, tweets = halves
    write_rows(Path("data/incoming/plain.csv"), plain)
    renamed = [{"body": row["text"], "mood": "glad" if row["label"] else "sad"} for row in tweets]
    write_rows(Path("data/incoming/tweets/a.csv"), renamed)
    metrics = gathered(
        incoming_source(name="plain", role="all"),
        incoming_source(
            paths=["data/incoming/tweets/*"],
            name="tweets",
            role="all",
            columns={"text": "body", "label": "mood"},
            labels={"sad": 0, "glad": 1},
        ),
    )
    assert metrics["sources"] == {name: {"rows": 100, "quarantined": 0} for name in ("plain", "tweets")}
    found = {(row["source"], row["text"], row["label"]) for row in rows_in(*paths.LABELLED_SPLITS, "recent")}
    assert found == {
        (name, row["text"], row["label"])
        for name, rows in (("plain", plain), ("tweets", tweets))
        for row in rows
    }


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            incoming_source(paths=["data/incoming/*.csv"], name="other"),
            r"incoming/a\.csv: belongs to the sources incoming and other",
        ),
        (files_source("data/incoming/a.csv", name="other"), r"incoming/a\.csv: matched twice, by incoming: "),
    ],
    ids=["incoming", "files"],
)
def test_incoming_file_of_two_sources_is_an_error(
    other: dict[str, Any], message: str, reviews: pa.Table
) -> None:
    write_rows(Path("data/incoming/a.csv"), reviews.to_pylist())
    with pytest.raises(UserError, match=message):
        gathered(incoming_source(), other)
    assert not paths.reviews("train").exists()


def test_incoming_file_that_no_source_reads_is_a_warning(
    reviews: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(Path("data/incoming/a.csv"), reviews.to_pylist())
    write_rows(Path("data/incoming/b.tsv"), reviews.to_pylist()[:2])
    gathered(incoming_source(paths=["data/incoming/*.csv"], role="all"))
    assert "data/incoming/b.tsv: not read" in caplog.text
    assert "a.csv: not read" not in caplog.text
