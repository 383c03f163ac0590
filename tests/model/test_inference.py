"""Logits of a split: in the order of the reviews, and only for token ids of the vocabulary."""

import numpy as np
import pytest
import torch

from sentiment.errors import UserError
from sentiment.model.classifier import INFERENCE_BATCH_SIZE, SentimentClassifier, predict_logits
from sentiment.tokens.token_store import TokenizedReviews
from tests.model.small_model import model_params

VOCABULARY = 50


@pytest.fixture
def model() -> SentimentClassifier:
    torch.manual_seed(0)
    return SentimentClassifier(model_params(), VOCABULARY)


def _reviews(*token_ids: list[int]) -> TokenizedReviews:
    return TokenizedReviews.from_lists(token_ids, np.zeros(len(token_ids)))


def test_logits_are_in_the_order_of_the_reviews(model: SentimentClassifier) -> None:
    rng = np.random.default_rng(0)
    reviews = [
        rng.integers(0, VOCABULARY, rng.integers(0, 30)).tolist() for _ in range(INFERENCE_BATCH_SIZE + 9)
    ]
    together = predict_logits(model, _reviews(*reviews))
    alone = [predict_logits(model, _reviews(review))[0] for review in reviews]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [VOCABULARY, -1, 2**31 - 1])
def test_token_id_outside_the_vocabulary_raises(wrong: int, model: SentimentClassifier) -> None:
    with pytest.raises(UserError, match=rf"mine: token id {wrong} is not in the model's vocabulary of 50"):
        predict_logits(model, _reviews([1, 2], [3, wrong]), "mine")


def test_no_reviews_and_empty_reviews_have_logits(model: SentimentClassifier) -> None:
    assert predict_logits(model, _reviews()).shape == (0,)
    empty = predict_logits(model, _reviews([], []))
    assert np.isfinite(empty).all()
    assert empty[0] == empty[1]
