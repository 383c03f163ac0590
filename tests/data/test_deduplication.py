import itertools

import numpy as np
import pytest

from sentiment.data.deduplication import DIGEST, SPLIT_PRECEDENCE, Duplicates, find_duplicates, hash_texts
from sentiment.data.row_spool import NO_LABEL


def found(*rows: str) -> Duplicates:
    """What is decided of rows; each is a split, a text and, if not 1, a label: "train a 0"."""
    splits, texts, labels = zip(*((*row.split(), "1")[:3] for row in rows), strict=True)
    codes = np.array([SPLIT_PRECEDENCE.index(split) for split in splits], np.uint8)
    known = [
        NO_LABEL if split == "unlabelled" else int(label) for split, label in zip(splits, labels, strict=True)
    ]
    return find_duplicates(hash_texts(texts), codes, np.array(known, np.int8))


def kept(*rows: str) -> list[bool]:
    """Which rows stay."""
    return found(*rows).retained.tolist()


def test_unique_texts_are_retained() -> None:
    assert kept("test a", "train b", "validation c", "unlabelled d") == [True] * 4


def test_first_of_duplicates_in_a_split_is_retained() -> None:
    assert kept("train b", "train a", "train a", "train b", "train a") == [True, True, False, False, False]


@pytest.mark.parametrize(("strong", "weak"), list(itertools.combinations(SPLIT_PRECEDENCE, 2)))
def test_duplicate_in_preferred_split_is_retained(strong: str, weak: str) -> None:
    """Test takes precedence over holdout, validation, recent and train; labelled over unlabelled."""
    assert kept(f"{strong} a", f"{weak} a") == [True, False]
    assert kept(f"{weak} a", f"{strong} a") == [False, True]


def test_split_precedence() -> None:
    assert SPLIT_PRECEDENCE == ("test", "holdout", "validation", "recent", "train", "unlabelled")


def test_all_test_rows_are_retained() -> None:
    assert kept("train a", "test a", "test a", "validation a", "test b") == [False, True, True, False, True]


def test_no_reviews_are_no_error() -> None:
    nothing = find_duplicates(hash_texts([]), np.array([], np.uint8), np.array([], np.int8))
    assert nothing.retained.tolist() == nothing.conflicting.tolist() == []


def test_digests_with_one_equal_half_are_different() -> None:
    digests = np.frombuffer(
        b"".join(first * 8 + second * 8 for first in (b"a", b"b") for second in (b"c", b"d")), DIGEST
    )
    train = np.full(4, SPLIT_PRECEDENCE.index("train"), np.uint8)
    assert find_duplicates(digests, train, np.ones(4, np.int8)).retained.tolist() == [True] * 4


def test_result_equals_naive_implementation() -> None:
    random = np.random.default_rng(0)
    texts = [str(number) for number in random.integers(0, 300, 2_000)]
    splits = random.integers(0, 4, 2_000).astype(np.uint8)
    labels = (random.random(2_000) < 0.05).astype(np.int8)
    labels[splits == SPLIT_PRECEDENCE.index("unlabelled")] = NO_LABEL
    best: dict[str, tuple[int, int]] = {}
    labels_of: dict[str, set[int]] = {}
    for row, (text, split) in enumerate(zip(texts, splits, strict=True)):
        best[text] = min(best.get(text, (9, 0)), (int(split), row))
        labels_of.setdefault(text, set()).add(int(labels[row]))
    both = [{0, 1} <= labels_of[text] for text in texts]
    expected = [
        split == 0 or (best[text] == (split, row) and not both[row])
        for row, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    assert 0 < sum(both) < 2_000
    decided = find_duplicates(hash_texts(texts), splits, labels)
    assert decided.retained.tolist() == expected
    assert decided.conflicting.tolist() == [
        has and label >= 0 for has, label in zip(both, labels, strict=True)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(["train a 0", "train a 1", "validation a 1"])))
def test_text_with_both_labels_is_dropped_in_any_order(order: tuple[str, ...]) -> None:
    decided = found(*order, "train b", "unlabelled a")
    assert decided.retained.tolist() == [False] * 3 + [True, False]
    assert decided.conflicting.tolist() == [True] * 3 + [False, False]


def test_test_row_with_conflicting_label_is_retained() -> None:
    decided = found("train a 0", "test a 1", "test b 0", "test b 1", "train c")
    assert decided.retained.tolist() == [False, True, True, True, True]
    assert decided.conflicting.tolist() == [True, True, True, True, False]


def test_duplicates_with_one_label_do_not_conflict() -> None:
    assert not found("train a 0", "train a 0", "unlabelled a", "test a 0").conflicting.any()


def test_texts_with_equal_tokens_are_duplicates() -> None:
    assert kept("test Fine", "train FINE", "train fi\u200bne", "train fine!") == [True, False, False, True]
