"""N-grams learned once for all trainings on the same reviews: CPU work, while GPU minutes are scarce."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sentiment.model.ngram_branch import NGramPart, learn_ngrams
from sentiment.params.model import NGrams
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training import loop

Learn = Callable[[TokenizedReviews, NGrams], tuple[NGramPart, ReviewNGrams]]


@contextmanager
def remembered_ngrams() -> Iterator[Learn]:
    """Inside the block, `fit` finds what an earlier `fit` learned from the same reviews by the same rule.

    Yields the function that remembers, in place of `learn_ngrams`.
    """
    known: dict[tuple[str, NGrams], tuple[NGramPart, ReviewNGrams]] = {}

    def learn(reviews: TokenizedReviews, params: NGrams) -> tuple[NGramPart, ReviewNGrams]:
        key = reviews.digest, params.model_copy(update={"weight": 0.5})  # the weight does not matter
        if key not in known:
            known[key] = learn_ngrams(reviews, params)
        part, ngrams = known[key]
        return copy.deepcopy(part), ngrams

    loop.learn_ngrams = learn  # type: ignore[attr-defined]
    try:
        yield learn
    finally:
        loop.learn_ngrams = learn_ngrams  # type: ignore[attr-defined]
