import itertools

import numpy as np
import pytest
from sentiment.reviews.repeats import DIGEST, STRONGEST_FIRST, kept_rows, text_digests


def kept(*rows: str) -> list[bool]:
    """Which rows stay; each is a split and a text, such as "train a"."""
    splits, texts = zip(*(row.split() for row in rows), strict=True)
    codes = np.array([STRONGEST_FIRST.index(split) for split in splits], np.uint8)
    return kept_rows(text_digests(texts), codes).tolist()


def test_texts_that_stand_once_stay() -> None:
    assert kept("test a", "train b", "validation c", "unlabelled d") == [True] * 4


def test_of_repeats_in_one_split_the_first_stays() -> None:
    assert kept("train b", "train a", "train a", "train b", "train a") == [True, True, False, False, False]


@pytest.mark.parametrize(("strong", "weak"), list(itertools.combinations(STRONGEST_FIRST, 2)))
def test_stronger_split_keeps_the_review_whichever_comes_first(strong: str, weak: str) -> None:
    """A review that is judged is not learned, one that chooses is not learned, a label beats none."""
    assert kept(f"{strong} a", f"{weak} a") == [True, False]
    assert kept(f"{weak} a", f"{strong} a") == [False, True]


def test_order_of_strength() -> None:
    assert STRONGEST_FIRST == ("test", "validation", "train", "unlabelled")


def test_test_split_never_loses_a_row() -> None:
    assert kept("train a", "test a", "test a", "validation a", "test b") == [False, True, True, False, True]


def test_no_reviews_are_no_error() -> None:
    assert kept_rows(text_digests([]), np.array([], np.uint8)).tolist() == []


def test_digests_that_agree_in_one_half_are_of_two_reviews() -> None:
    digests = np.frombuffer(
        b"".join(first * 8 + second * 8 for first in (b"a", b"b") for second in (b"c", b"d")), DIGEST
    )
    train = np.full(4, STRONGEST_FIRST.index("train"), np.uint8)
    assert kept_rows(digests, train).tolist() == [True] * 4


def test_many_reviews_agree_with_a_plain_count() -> None:
    random = np.random.default_rng(0)
    texts = [str(number) for number in random.integers(0, 300, 2_000)]
    splits = random.integers(0, 4, 2_000).astype(np.uint8)
    best: dict[str, tuple[int, int]] = {}
    for row, (text, split) in enumerate(zip(texts, splits, strict=True)):
        best[text] = min(best.get(text, (9, 0)), (int(split), row))
    expected = [
        split == 0 or best[text] == (split, row)
        for row, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    assert kept_rows(text_digests(texts), splits).tolist() == expected
