"""A linear classifier of n-grams, the wide part of a wide and deep model (Cheng et al., 2016)."""

import numpy as np
import torch
from torch import Tensor, nn

from sentiment.params.model import NGrams
from sentiment.tokens.ngram_features import NGramVocabulary, ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews

START = 0.04
"""First weight of every n-gram: the log-count ratios then give logits of a few units, as naive Bayes would
with far too much confidence at 1."""


class NGramPart(nn.Module):
    """One weight per n-gram, times how much more often positive reviews contain it than negative ones.

    That ratio makes rare n-grams quiet and telling ones loud from the first step on: logistic regression on
    naive Bayes features, after Wang and Manning (2012), who found binary counts to do best. Their sum over a
    review is divided by the root of how many known n-grams it has: or logits would grow with the length.
    """

    keys: Tensor
    scaled_ratios: Tensor
    """Log-count ratios, times the root of how many n-grams a training review has on average: the logit of a
    review of that length is the plain sum."""

    def __init__(self, order: int, entries: int) -> None:
        super().__init__()
        self.order = order
        self.weights = nn.Parameter(torch.full((entries, 1), START))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("keys", torch.zeros(entries, dtype=torch.int64))
        self.register_buffer("scaled_ratios", torch.zeros(entries))

    @property
    def vocabulary(self) -> NGramVocabulary:
        """The n-grams that have a weight."""
        return NGramVocabulary(self.order, self.keys.cpu().numpy().view(np.uint64))

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Return logits, shape (reviews,).

        indices: shape (n-grams,), of all reviews after one another. offsets: shape (reviews + 1,), where each
        review starts and the last one ends. A review without known n-grams gets the bias alone.
        """
        logits: Tensor = nn.functional.embedding_bag(
            indices,
            self.weights,
            offsets,
            mode="sum",
            per_sample_weights=self.scaled_ratios[indices],
            include_last_offset=True,
        )
        return logits.squeeze(1) / offsets.diff().clamp(min=1).sqrt() + self.bias


def learn_ngrams(reviews: TokenizedReviews, params: NGrams) -> tuple[NGramPart, ReviewNGrams]:
    """Return a part with the n-grams and log-count ratios of labelled reviews, and these reviews' n-grams.

    A review whose label is a probability counts towards both classes, by its shares.
    """
    vocabulary = NGramVocabulary.learn(reviews, params.order, params.min_reviews)
    ngrams = vocabulary.find(reviews)
    labels = np.repeat(reviews.labels, np.diff(ngrams.offsets))
    counts = np.bincount(ngrams.indices, minlength=len(vocabulary))
    of_positive = np.bincount(ngrams.indices, weights=labels, minlength=len(vocabulary))
    added = params.smoothing * len(reviews)
    positive, negative = of_positive + added, counts - of_positive + added
    ratios = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    part = NGramPart(params.order, len(vocabulary))
    part.keys.copy_(torch.from_numpy(vocabulary.keys.view(np.int64)))
    part.scaled_ratios.copy_(torch.from_numpy(ratios * np.sqrt(len(ngrams.indices) / len(reviews))))
    return part, ngrams
