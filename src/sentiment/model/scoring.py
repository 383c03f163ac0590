"""Scores of tokenized reviews."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.inputs import inputs_of
from sentiment.progress import track
from sentiment.tokens.batches import Cut, ordered_batches
from sentiment.tokens.store import TokenizedReviews

SCORING_BATCH = 64
"""As in training, so that scoring needs no more memory than a step does."""


def score(
    model: SentimentClassifier, reviews: TokenizedReviews, description: str = "score"
) -> NDArray[np.float32]:
    """Return each review's logit, shape (reviews,), in the order of the reviews.

    description: what the progress shown is called.
    Always in 32-bit floats, whatever the training precision: a score does not depend on the machine's.
    """
    cut = Cut(model.params.max_tokens, model.params.keep)
    logits = np.empty(len(reviews), dtype=np.float32)
    was_training = model.training
    model.eval()
    ngrams = model.ngrams.vocabulary.find(reviews) if model.ngrams else None
    batches = ordered_batches(reviews, cut, SCORING_BATCH, ngrams)
    with torch.inference_mode():
        for batch in track(batches, math.ceil(len(reviews) / SCORING_BATCH), description):
            logits[batch.rows] = model(*inputs_of(batch)).numpy()
    model.train(was_training)
    return logits


def probability(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sigmoid of logits, without overflow for any size of them."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float64))).numpy()
