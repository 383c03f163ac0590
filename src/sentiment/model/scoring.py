"""Scores of tokenized reviews."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.logs import progress
from sentiment.model.classifier import SentimentClassifier, inputs_of
from sentiment.tokens.batches import Cut, ordered_batches, prefetched
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews

SCORING_BATCH = 64
"""As in training, so that scoring needs no more memory than a step does."""

SCORING_BATCH_ON_GPU = 512
"""A GPU reads so many side by side in about the time of a few."""


def score(
    model: SentimentClassifier,
    reviews: TokenizedReviews,
    description: str | None = "score",
    ngrams: ReviewNGrams | None = None,
) -> NDArray[np.float32]:
    """Return each review's logit, shape (reviews,), in the order of the reviews.

    description: what the progress shown is called; None shows none. ngrams: what `model.find_ngrams` finds in
    them, where the caller scores them again and again.
    Always in 32-bit floats, whatever the training precision: a score does not depend on the machine's.
    The model scores on the device that it is on. Raises UserError where a token id is not one of its
    vocabulary's.
    """
    check_vocabulary(reviews, model.vocabulary_size, description or "reviews")
    cut = Cut(model.params.max_tokens, model.params.truncation)
    ngrams = model.find_ngrams(reviews) if ngrams is None else ngrams
    logits = np.empty(len(reviews), dtype=np.float32)
    was_training = model.training
    model.eval()
    on_gpu = model.device.type == "cuda"
    size = SCORING_BATCH_ON_GPU if on_gpu else SCORING_BATCH
    batches = ordered_batches(reviews, cut, size, ngrams)
    if on_gpu:
        batches = prefetched(batches)
    if description is not None:
        batches = progress(batches, math.ceil(len(reviews) / size), description)
    with torch.inference_mode():
        for batch in batches:
            logits[batch.rows] = model(*inputs_of(batch, model.device)).cpu().numpy()
    model.train(was_training)
    return logits


def check_vocabulary(reviews: TokenizedReviews, vocabulary_size: int, description: str) -> None:
    """Raise UserError where a token id is not one of a vocabulary's.

    description: what the reviews are called in the error.
    """
    if not len(reviews.ids):
        return
    lowest, highest = int(reviews.ids.min()), int(reviews.ids.max())
    if lowest < 0 or highest >= vocabulary_size:
        wrong = lowest if lowest < 0 else highest
        raise UserError(
            f"{description}: token id {wrong} is not in the model's vocabulary of {vocabulary_size} entries; "
            "`dvc repro` makes tokens and model that fit each other"
        )


def probability(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sigmoid of logits, without overflow for any size of them."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float64))).numpy()
