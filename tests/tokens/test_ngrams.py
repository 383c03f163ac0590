"""The n-grams of reviews against sets of tuples."""

from collections import Counter

import numpy as np
import pytest

from sentiment.tokens import ngram_features as ngrams
from sentiment.tokens.ngram_features import NGramVocabulary, ngram_hashes
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

REVIEWS = [
    list(np.random.default_rng(seed).integers(UNKNOWN_ID, 12, length))
    for seed, length in enumerate([30, 1, 0, 2, 17, 40])
]


def _tokenized(lists: list[list[int]]) -> TokenizedReviews:
    return TokenizedReviews.from_lists(lists, np.arange(len(lists)) % 2)


def _tuples(ids: list[int], order: int) -> set[tuple[int, ...]]:
    found = {tuple(ids[i : i + n]) for n in range(1, order + 1) for i in range(len(ids) - n + 1)}
    return {words for words in found if UNKNOWN_ID not in words}


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_each_ngram_once_and_none_with_an_unknown_word(order: int) -> None:
    for ids in REVIEWS:
        assert len(ngram_hashes(np.array(ids, np.int32), order)) == len(_tuples(ids, order))


def test_equal_ngrams_have_equal_hashes_and_order_matters() -> None:
    one, same, turned = (ngram_hashes(np.array(ids, np.int32), 2) for ids in ([5, 6], [5, 6], [6, 5]))
    assert set(one) == set(same)
    assert len(set(one) & set(turned)) == 2  # the words alone


@pytest.mark.parametrize("block", [1, 4, 100])
def test_vocabulary_holds_what_enough_reviews_contain(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "BLOCK_REVIEWS", block)
    counts = Counter(words for ids in REVIEWS for words in _tuples(ids, 3))
    for least in (1, 2, 4):
        vocabulary = NGramVocabulary.learn(_tokenized(REVIEWS), 3, least)
        assert len(vocabulary) == sum(count >= least for count in counts.values())
        assert (np.diff(vocabulary.keys.astype(object)) > 0).all()


@pytest.mark.parametrize("block", [1, 4, 100])
def test_found_are_those_of_each_review_alone_ascending_and_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = NGramVocabulary.learn(_tokenized(REVIEWS), 3, 2)
    monkeypatch.setattr(ngrams, "FOUND_REVIEWS", block)
    found = vocabulary.find(_tokenized(REVIEWS))
    for row, ids in enumerate(REVIEWS):
        hashes = ngram_hashes(np.array(ids, np.int32), 3)
        expected = np.flatnonzero(np.isin(vocabulary.keys, hashes))
        assert found.indices[found.offsets[row] : found.offsets[row + 1]].tolist() == expected.tolist()
    assert found.offsets[-1] == len(found.indices) > 0


def test_found_are_the_known_ngrams_of_each_review() -> None:
    vocabulary = NGramVocabulary.learn(_tokenized(REVIEWS[:3]), 2, 1)
    known = _tuples(REVIEWS[0], 2) | _tuples(REVIEWS[1], 2)
    found = vocabulary.find(_tokenized(REVIEWS))
    lengths = np.diff(found.offsets)
    assert lengths.tolist() == [len(_tuples(ids, 2) & known) for ids in REVIEWS]
    turned = found.take(np.array([5, 0]))
    assert np.diff(turned.offsets).tolist() == [lengths[5], lengths[0]]
    assert (turned.indices[: lengths[5]] == found.indices[found.offsets[5] : found.offsets[6]]).all()


def test_a_vocabulary_of_none_finds_none() -> None:
    found = NGramVocabulary.learn(_tokenized(REVIEWS), 2, 99).find(_tokenized(REVIEWS))
    assert found.offsets.tolist() == [0] * (len(REVIEWS) + 1)
