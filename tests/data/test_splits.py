"""The split of a review depends only on itself, its group and the seed."""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pytest

from sentiment import paths
from sentiment.data.deduplication import compute_duplicate_key
from sentiment.data.parquet import SCHEMA
from sentiment.data.splits import (
    assign_to_train,
    hash_to_unit_interval,
    hold_out_recent,
    split_by_hash,
    split_train_half,
)
from sentiment.params.data import SplitFractions

SHARES = SplitFractions(train=0.5, validation=0.1, holdout=0.1, test=0.3)
TRAIN_HALF = ("train", "validation", "holdout")
"""Splits into which the predefined train split of a source is divided."""


def rows_of(count: int, groups: int | None = None, split: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "text": f"Review {row}",
            "label": row % 2,
            "group": None if groups is None else f"film {row % groups}",
            "split": split,
            "row": str(row),
        }
        for row in range(count)
    ]


def batches(rows: list[dict[str, Any]], size: int = 300) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, SCHEMA).to_batches(size)


def by_hash(rows: list[dict[str, Any]], seed: int = 42, shares: SplitFractions = SHARES) -> dict[str, str]:
    """The split of each row, by its name."""
    found = [row for batch in split_by_hash(batches(rows), shares, seed) for row in batch.to_pylist()]
    return {row["row"]: row["split"] for row in found}


def test_split_fractions_are_close_to_the_requested_ones() -> None:
    counts = Counter(by_hash(rows_of(5_000)).values())
    for split, share in SHARES.model_dump().items():
        deviation = (share * (1 - share) / 5_000) ** 0.5
        assert counts[split] / 5_000 == pytest.approx(share, abs=5 * deviation)


def test_group_is_in_one_split() -> None:
    rows = rows_of(2_000, groups=100)
    splits = by_hash(rows)
    sides = defaultdict(set)
    for row in rows:
        sides[row["group"]].add(splits[row["row"]])
    assert {len(found) for found in sides.values()} == {1}
    assert set(splits.values()) == set(paths.LABELLED_SPLITS)


def test_reviews_with_equal_keys_are_in_one_split() -> None:
    rows = rows_of(200)
    same = [
        {**row, "text": f" {row['text'].replace(' ', '<br />')} ", "row": f"{row['row']}b"} for row in rows
    ]
    splits = by_hash(rows + same)
    assert all(splits[row["row"]] == splits[f"{row['row']}b"] for row in rows)


@pytest.mark.parametrize("groups", [None, 50])
def test_split_does_not_depend_on_other_rows(groups: int | None) -> None:
    rows = rows_of(600, groups)
    splits = by_hash(rows)
    fewer = by_hash(rows[::-2])
    assert fewer == {name: splits[name] for name in fewer}
    others = [{**row, "text": f"Another {row['row']}", "row": f"{row['row']}b"} for row in rows_of(300, 7)]
    more = by_hash(others + rows)
    assert {name: more[name] for name in splits} == splits


@pytest.mark.parametrize("groups", [None, 100])
def test_test_split_depends_on_no_other_fraction(groups: int | None) -> None:
    """Not even on whether there is a holdout split: this is the rule by which test was split before."""
    rows = rows_of(2_000, groups)
    others = SplitFractions(train=0.2, validation=0.3, holdout=0.2, test=0.3)
    tested = [
        {row for row, split in by_hash(rows, shares=s).items() if split == "test"} for s in (SHARES, others)
    ]
    keys = {row["row"]: row["group"] or compute_duplicate_key(row["text"]) for row in rows}
    assert (
        tested[0] == tested[1] == {row for row, key in keys.items() if hash_to_unit_interval(key, 42) < 0.3}
    )


def test_split_depends_on_the_seed() -> None:
    rows = rows_of(300)
    assert by_hash(rows, 1) == by_hash(rows, 1) != by_hash(rows, 2)
    assert 0 <= hash_to_unit_interval("a", 1) < 1


def test_validation_and_holdout_are_split_from_train_by_group() -> None:
    rows = [*rows_of(2_000, 100, "train"), *rows_of(500, 100, "test"), *rows_of(500, None, "unlabelled")]
    cut = [row for part in split_train_half(batches(rows), SHARES, 42) for row in part.to_pylist()]
    sides = defaultdict(set)
    for before, after in zip(rows, cut, strict=True):
        assert {**before, "split": None} == {**after, "split": None}
        if before["split"] == "train":
            sides[before["group"]].add(after["split"])
        else:
            assert after["split"] == before["split"]
    assert set(map(frozenset, sides.values())) == {frozenset({split}) for split in TRAIN_HALF}
    for split in TRAIN_HALF:
        share = sum(found == {split} for found in sides.values()) / len(sides)
        assert share == pytest.approx(SHARES.model_dump()[split] / 0.7, abs=0.1)


def test_role_train_assigns_every_labelled_review_to_train() -> None:
    rows = [row for split in (*paths.LABELLED_SPLITS, "unlabelled") for row in rows_of(5, None, split)]
    found = [row["split"] for batch in assign_to_train(batches(rows)) for row in batch.to_pylist()]
    assert found == ["train"] * 20 + ["unlabelled"] * 5


def test_recent_reviews_are_a_share_of_train_that_does_not_depend_on_the_split() -> None:
    rows = rows_of(5_000, groups=2_500)
    found = [
        row
        for batch in hold_out_recent(split_by_hash(batches(rows), SHARES, 42), 0.3, 42)
        for row in batch.to_pylist()
    ]
    splits, before = {row["row"]: row["split"] for row in found}, by_hash(rows)
    assert all(splits[name] in (split, "recent") for name, split in before.items())
    assert {before[name] for name, split in splits.items() if split == "recent"} == {"train"}
    counts = Counter(splits.values())
    assert counts["recent"] / (counts["recent"] + counts["train"]) == pytest.approx(0.3, abs=0.06)
    sides = defaultdict(set)
    for row in found:
        sides[row["group"]].add(row["split"])
    assert {len(group) for group in sides.values()} == {1}
