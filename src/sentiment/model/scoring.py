"""Scores of tokenized reviews."""

import numpy as np
import torch
from numpy.typing import NDArray

from sentiment.model.classifier import SentimentClassifier
from sentiment.tokens.batches import Cut, ordered_batches
from sentiment.tokens.store import TokenizedReviews

SCORING_BATCH = 256


def score(model: SentimentClassifier, reviews: TokenizedReviews) -> NDArray[np.float32]:
    """Return each review's logit, shape (reviews,), in the order of the reviews.

    Always in 32-bit floats, whatever the training precision: a score does not depend on the machine's.
    """
    cut = Cut(model.params.max_tokens, model.params.keep)
    logits = np.empty(len(reviews), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in ordered_batches(reviews, cut, SCORING_BATCH):
            outputs = model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths))
            logits[batch.rows] = outputs.numpy()
    model.train(was_training)
    return logits


def probability(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sigmoid of logits, without overflow for any size of them."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float64))).numpy()
