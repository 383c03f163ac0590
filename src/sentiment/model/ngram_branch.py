"""A linear n-gram classifier, the wide branch of a wide and deep model (Cheng et al., 2016)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentiment.params.model import NGrams
from sentiment.tokens.ngram_features import NGramVocabulary, ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews

INITIAL_WEIGHT = 0.04
"""Initial weight of every n-gram. It scales the log-count ratios so that logits have a magnitude of a few
units; a weight of 1 would give the overconfident logits of naive Bayes."""


class NGramBranch(nn.Module):
    """Logistic regression on naive Bayes features: each n-gram's weight is multiplied by its log-count ratio.

    The ratio compares how many positive and negative reviews contain the n-gram, so that uninformative
    n-grams have little effect from the first step on. Source: Wang and Manning (2012), who found binary
    counts to work best. The sum over a review is divided by the square root of its number of n-grams;
    without that, logits would grow with the length of the review.

    Args:
        order: length of the longest n-grams, in tokens.
        num_ngrams: size of the n-gram vocabulary.
    """

    keys: Tensor
    """Hashes of the n-grams, shape (num_ngrams,): `NGramVocabulary.keys`, reinterpreted as int64."""
    scaled_ratios: Tensor
    """Log-count ratios times the square root of the mean number of n-grams of a training review, shape
    (num_ngrams,). For a review with that number of n-grams, this factor and the divisor cancel."""

    def __init__(self, order: int, num_ngrams: int) -> None:
        super().__init__()
        self.order = order
        self.weights = nn.Parameter(torch.full((num_ngrams, 1), INITIAL_WEIGHT))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("keys", torch.zeros(num_ngrams, dtype=torch.int64))
        self.register_buffer("scaled_ratios", torch.zeros(num_ngrams))

    @property
    def vocabulary(self) -> NGramVocabulary:
        """Vocabulary of the n-grams that have a weight."""
        return NGramVocabulary(self.order, self.keys.cpu().numpy().view(np.uint64))

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Compute the logits of reviews. The logit of a review without vocabulary n-grams is the bias.

        Args:
            indices: vocabulary indices of the n-grams of all reviews, concatenated, shape (n-grams,).
            offsets: start of each review in `indices`, and the end of the last one, shape (reviews + 1,).

        Returns:
            Logits, shape (reviews,).
        """
        logits: Tensor = nn.functional.embedding_bag(
            indices,
            self.weights,
            offsets,
            mode="sum",
            per_sample_weights=self.scaled_ratios[indices],
            include_last_offset=True,
        )
        # In float32, the last bit of a root may depend on the processor: MKL starts from an approximation.
        norms = offsets.diff().clamp(min=1).double().sqrt().float()
        return logits.squeeze(1) / norms + self.bias


def fit_ngram_branch(reviews: TokenizedReviews, params: NGrams) -> tuple[NGramBranch, ReviewNGrams]:
    """Build the n-gram vocabulary of labelled reviews and compute its log-count ratios.

    Args:
        reviews: labelled reviews. A review with a soft label counts towards both classes, in proportion.
        params: `model.ngrams` of params.yaml.

    Returns:
        The branch with its initial weights, and the vocabulary n-grams of the reviews.
    """
    statistics = _compute_statistics(reviews, params.order, params.min_reviews, params.smoothing)
    branch = NGramBranch(params.order, len(statistics.vocabulary))
    branch.keys.copy_(torch.from_numpy(statistics.vocabulary.keys.view(np.int64)))
    branch.scaled_ratios.copy_(torch.from_numpy(statistics.scaled_ratios))
    return branch, statistics.ngrams


@dataclass(frozen=True)
class _Statistics:
    """What the n-gram branch takes from the training reviews.

    Attributes:
        vocabulary: n-grams of the reviews.
        scaled_ratios: see `NGramBranch.scaled_ratios`, shape (num_ngrams,).
        ngrams: vocabulary n-grams of each review.
    """

    vocabulary: NGramVocabulary
    scaled_ratios: NDArray[np.float64]
    ngrams: ReviewNGrams


@lru_cache(maxsize=1)  # the trials of a search train on the same reviews, one after another
def _compute_statistics(
    reviews: TokenizedReviews, order: int, min_reviews: int, smoothing: float
) -> _Statistics:
    vocabulary = NGramVocabulary.build(reviews, order, min_reviews)
    ngrams = vocabulary.extract(reviews)
    labels = np.repeat(reviews.labels, np.diff(ngrams.offsets))
    counts = np.bincount(ngrams.indices, minlength=len(vocabulary))
    positive_counts = np.bincount(ngrams.indices, weights=labels, minlength=len(vocabulary))
    pseudo_count = smoothing * len(reviews)
    positive, negative = positive_counts + pseudo_count, counts - positive_counts + pseudo_count
    ratios = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    return _Statistics(vocabulary, ratios * np.sqrt(len(ngrams.indices) / len(reviews)), ngrams)
