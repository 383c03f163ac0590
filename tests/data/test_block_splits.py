import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from sentiment.data.imdb import load_package_reviews
from sentiment.data.splits import split_in_blocks
from sentiment.errors import UserError
from sentiment.params.data import SplitFractions

SHARES = SplitFractions(train=0.6, validation=0.1, holdout=0.1, test=0.2)


def splits_of(reviews: pa.Table, seed: int) -> NDArray[np.object_]:
    return split_in_blocks(reviews["label"], SHARES, seed).to_numpy(zero_copy_only=False)


def test_every_review_is_in_exactly_one_split(reviews: pa.Table) -> None:
    splits, counts = np.unique(splits_of(reviews, 42), return_counts=True)
    assert dict(zip(splits, counts, strict=True)) == {
        "train": 120,
        "validation": 20,
        "holdout": 20,
        "test": 40,
    }


def test_splits_are_balanced(reviews: pa.Table) -> None:
    splits, labels = splits_of(reviews, 3), reviews["label"].to_numpy()
    assert {split: labels[splits == split].mean() for split in set(splits)} == {
        "train": 0.5,
        "validation": 0.5,
        "holdout": 0.5,
        "test": 0.5,
    }


def test_each_label_has_few_blocks(reviews: pa.Table) -> None:
    """A block per split and label: four cuts in a circle, so at most four films per label are cut apart."""
    splits, labels = splits_of(reviews, 42), reviews["label"].to_numpy()
    for label in (0, 1):
        around = splits[labels == label]
        assert np.count_nonzero(around != np.roll(around, -1)) == 4


def test_blocks_are_in_the_order_of_the_splits(reviews: pa.Table) -> None:
    splits = splits_of(reviews, 42)[reviews["label"].to_numpy() == 0].tolist()
    start = next(row for row, split in enumerate(splits) if (splits[row - 1], split) == ("test", "train"))
    around = splits[start:] + splits[:start]
    assert around == ["train"] * 60 + ["holdout"] * 10 + ["validation"] * 10 + ["test"] * 20


def test_test_block_does_not_depend_on_the_other_fractions(reviews: pa.Table) -> None:
    others = SplitFractions(train=0.3, validation=0.3, holdout=0.2, test=0.2)
    changed = split_in_blocks(reviews["label"], others, 42).to_numpy(zero_copy_only=False)
    assert ((changed == "test") == (splits_of(reviews, 42) == "test")).all()


def test_both_labels_are_split_at_the_same_fraction(reviews: pa.Table) -> None:
    """The source lists films in one order under both labels, so a film's two halves land together."""
    splits, labels = splits_of(reviews, 42), reviews["label"].to_numpy()
    assert splits[labels == 0].tolist() == splits[labels == 1].tolist()


def test_split_depends_on_the_seed(reviews: pa.Table) -> None:
    first, again, other = (splits_of(reviews, seed).tolist() for seed in (42, 42, 43))
    assert first == again
    assert first != other


def test_too_few_reviews_for_a_split_is_an_error(reviews: pa.Table) -> None:
    few = reviews["label"].filter(pc.equal(reviews["label"], 0)).slice(0, 2)
    with pytest.raises(
        UserError,
        match=r"2 reviews with label 0 are too few to assign any to the (validation|holdout|test) split",
    ):
        split_in_blocks(few, SHARES, seed=42)


def test_package_has_25000_balanced_reviews() -> None:
    source = load_package_reviews()
    assert source.num_rows == 25_000
    assert np.mean(source["label"].to_numpy()) == 0.5
