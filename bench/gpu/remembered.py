"""N-grams learned once for all trainings on the same reviews: CPU work, while GPU minutes are scarce."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sentiment.model.ngram_branch import NGramBranch, fit_ngram_branch
from sentiment.params.model import NGrams
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training import loop

Learn = Callable[[TokenizedReviews, NGrams], tuple[NGramBranch, ReviewNGrams]]


@contextmanager
def remembered_ngrams() -> Iterator[Learn]:
    """Inside the block, `fit` finds what an earlier `fit` learned from the same reviews by the same rule.

    Yields the function that remembers, in place of `fit_ngram_branch`.
    """
    known: dict[tuple[str, NGrams], tuple[NGramBranch, ReviewNGrams]] = {}

    def learn(reviews: TokenizedReviews, params: NGrams) -> tuple[NGramBranch, ReviewNGrams]:
        key = reviews.digest, params.model_copy(update={"weight": 0.5})  # the weight does not matter
        if key not in known:
            known[key] = fit_ngram_branch(reviews, params)
        part, ngrams = known[key]
        return copy.deepcopy(part), ngrams

    loop.fit_ngram_branch = learn  # type: ignore[attr-defined]
    try:
        yield learn
    finally:
        loop.fit_ngram_branch = fit_ngram_branch  # type: ignore[attr-defined]
