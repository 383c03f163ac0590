import numpy as np
import pyarrow as pa
import pytest

from sentiment.errors import UserError
from sentiment.params.data import SplitShares
from sentiment.reviews.cleaning import deduplicated, normalized
from sentiment.reviews.package import read_package
from sentiment.reviews.splitting import limited, split_in_blocks

SHARES = SplitShares(train=0.7, validation=0.1, test=0.2)


def test_every_review_is_in_exactly_one_split(reviews: pa.Table) -> None:
    splits = split_in_blocks(reviews, SHARES, seed=42)
    texts = [text for part in splits.values() for text in part["text"].to_pylist()]
    assert sorted(texts) == sorted(reviews["text"].to_pylist())
    assert {split: part.num_rows for split, part in splits.items()} == {
        "train": 140,
        "validation": 20,
        "test": 40,
    }


def test_splits_are_balanced(reviews: pa.Table) -> None:
    for part in split_in_blocks(reviews, SHARES, seed=3).values():
        assert np.mean(part["label"].to_numpy()) == 0.5


def test_each_label_is_cut_at_few_places(reviews: pa.Table) -> None:
    """A block per split and label: three cuts in a circle, so at most three films per label are cut apart."""
    texts = reviews["text"].to_pylist()
    split_of = {
        text: split
        for split, part in split_in_blocks(reviews, SHARES, seed=42).items()
        for text in part["text"].to_pylist()
    }
    labels = reviews["label"].to_numpy()
    for label in (0, 1):
        around = [split_of[texts[row]] for row in np.flatnonzero(labels == label)]
        cuts = sum(here != there for here, there in zip(around, [*around[1:], around[0]], strict=True))
        assert cuts == 3


def test_both_labels_are_cut_at_the_same_share(reviews: pa.Table) -> None:
    """The source lists films in one order under both labels, so a film's two halves land together."""
    labels = reviews["label"].to_numpy()
    starts = []
    for label in (0, 1):
        texts = [reviews["text"][int(row)].as_py() for row in np.flatnonzero(labels == label)]
        train = split_in_blocks(reviews, SHARES, seed=42)["train"]
        first = next(
            t
            for t, y in zip(train["text"].to_pylist(), train["label"].to_pylist(), strict=True)
            if y == label
        )
        starts.append(texts.index(first))
    assert starts[0] == starts[1]


def test_seed_decides_the_split(reviews: pa.Table) -> None:
    first, again, other = (split_in_blocks(reviews, SHARES, seed)["test"] for seed in (42, 42, 43))
    assert first.equals(again)
    assert not first.equals(other)


def test_too_few_reviews_for_a_split_is_an_error(reviews: pa.Table) -> None:
    with pytest.raises(UserError, match=r"no review with label 0 is left for the (validation|test) split"):
        split_in_blocks(limited(reviews, 4), SHARES, seed=42)


def test_the_source_has_25000_balanced_reviews() -> None:
    source = read_package()
    assert source.num_rows == 25_000
    assert np.mean(source["label"].to_numpy()) == 0.5


def test_repeats_are_found_after_normalizing() -> None:
    table = pa.table({"text": ["A  fine\nfilm.", "A fine<br /><br />film.", "Another"], "label": [1, 1, 0]})
    kept, dropped = deduplicated(table)
    assert kept["text"].to_pylist() == ["A fine film.", "Another"]
    assert dropped == 1


def test_normalized_text_has_no_markup_and_single_spaces() -> None:
    assert normalized(" One.<br />Two.<BR/>\n\tThree. ") == "One. Two. Three."


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [(["fine", " <br /> "], [1, 0], "no text: 1"), (["fine", "bad"], [1, 2], "neither 0 nor 1: 1")],
)
def test_unusable_rows_are_named(texts: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        deduplicated(pa.table({"text": texts, "label": labels}))
