"""N-grams of reviews compared with sets of tuples."""

from collections import Counter

import numpy as np
import pytest

from sentiment.tokens import ngram_features
from sentiment.tokens.ngram_features import NGramVocabulary, hash_ngrams
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
    return {ngram for ngram in found if UNKNOWN_ID not in ngram}


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_each_ngram_is_hashed_once_without_oov_tokens(order: int) -> None:
    for ids in REVIEWS:
        assert len(hash_ngrams(np.array(ids, np.int32), order)) == len(_tuples(ids, order))


def test_equal_ngrams_have_equal_hashes_and_order_matters() -> None:
    one, same, reversed_ = (hash_ngrams(np.array(ids, np.int32), 2) for ids in ([5, 6], [5, 6], [6, 5]))
    assert set(one) == set(same)
    assert len(set(one) & set(reversed_)) == 2  # the unigrams


@pytest.mark.parametrize("block", [1, 4, 100])
def test_vocabulary_contains_ngrams_of_enough_reviews(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_features, "BUILD_BLOCK", block)
    counts = Counter(ngram for ids in REVIEWS for ngram in _tuples(ids, 3))
    for min_reviews in (1, 2, 4):
        vocabulary = NGramVocabulary.build(_tokenized(REVIEWS), 3, min_reviews)
        assert len(vocabulary) == sum(count >= min_reviews for count in counts.values())
        assert (np.diff(vocabulary.keys.astype(object)) > 0).all()


@pytest.mark.parametrize("block", [1, 4, 100])
def test_extracted_ngrams_are_ascending_unique_and_independent_of_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = NGramVocabulary.build(_tokenized(REVIEWS), 3, 2)
    monkeypatch.setattr(ngram_features, "EXTRACT_BLOCK", block)
    found = vocabulary.extract(_tokenized(REVIEWS))
    for row, ids in enumerate(REVIEWS):
        hashes = hash_ngrams(np.array(ids, np.int32), 3)
        expected = np.flatnonzero(np.isin(vocabulary.keys, hashes))
        assert found.indices[found.offsets[row] : found.offsets[row + 1]].tolist() == expected.tolist()
    assert found.offsets[-1] == len(found.indices) > 0


def test_extracted_ngrams_are_those_of_the_vocabulary() -> None:
    vocabulary = NGramVocabulary.build(_tokenized(REVIEWS[:3]), 2, 1)
    known = _tuples(REVIEWS[0], 2) | _tuples(REVIEWS[1], 2)
    found = vocabulary.extract(_tokenized(REVIEWS))
    lengths = np.diff(found.offsets)
    assert lengths.tolist() == [len(_tuples(ids, 2) & known) for ids in REVIEWS]
    selected = found.take(np.array([5, 0]))
    assert np.diff(selected.offsets).tolist() == [lengths[5], lengths[0]]
    assert (selected.indices[: lengths[5]] == found.indices[found.offsets[5] : found.offsets[6]]).all()


def test_empty_vocabulary_extracts_nothing() -> None:
    found = NGramVocabulary.build(_tokenized(REVIEWS), 2, 99).extract(_tokenized(REVIEWS))
    assert found.offsets.tolist() == [0] * (len(REVIEWS) + 1)
