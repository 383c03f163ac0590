"""Linear models of word n-grams, with scikit-learn's usual settings; nothing is tuned."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from sentiment.evaluation.reference import build_reference

WORDS_AND_MARKS = r"\w+|[^\w\s]"
"""Every word and every punctuation mark, as this project's tokenizer splits text."""


class LogCountRatios(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Scales each feature by naive Bayes' log-count ratio (Wang and Manning, 2012)."""

    def fit(self, counts: csr_matrix, labels: Any) -> Self:
        """Learn the ratios from binary counts, shape (reviews, features), and labels, shape (reviews,)."""
        positive, negative = (
            np.asarray(counts[np.asarray(labels) == label].sum(axis=0)).ravel() + 1.0 for label in (1, 0)
        )
        self.ratios_ = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
        return self

    def transform(self, counts: csr_matrix) -> csr_matrix:
        """Return the counts, scaled."""
        scaled: csr_matrix = counts.multiply(self.ratios_).tocsr()
        return scaled


def nb_svm(order: int) -> Pipeline:
    """Naive Bayes features of up to `order` words, logistic regression instead of the SVM."""
    return make_pipeline(
        CountVectorizer(ngram_range=(1, order), binary=True, token_pattern=WORDS_AND_MARKS),
        LogCountRatios(),
        LogisticRegression(solver="liblinear", dual=True, max_iter=1000),
    )


MODELS: dict[str, Callable[[], Pipeline]] = {
    "TF-IDF of 1-2-grams, logistic regression": build_reference,
    "NB-SVM of 1-2-grams": lambda: nb_svm(2),
    "NB-SVM of 1-3-grams": lambda: nb_svm(3),
}
"""Factories of the models, by name."""
