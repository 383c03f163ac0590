"""The naive Bayes features of the linear baselines, compared with plain NumPy."""

import numpy as np
from scipy.sparse import csr_matrix

from bench.linear_models import MODELS, LogCountRatios


def test_ratios_are_those_of_naive_bayes_on_binary_counts() -> None:
    counts = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0]], dtype=float)
    positive, negative = np.array([1, 0, 1]) + 1.0, np.array([1, 2, 0]) + 1.0
    expected = np.log((positive / positive.sum()) / (negative / negative.sum()))
    scaled = LogCountRatios().fit_transform(csr_matrix(counts), [1, 0, 0])
    np.testing.assert_allclose(scaled.toarray(), counts * expected)


def test_each_model_ranks_what_it_learned() -> None:
    texts = ["a fine film !", "a bad film .", "so fine , so good", "so bad , so dull"] * 5
    labels = [1, 0, 1, 0] * 5
    for make in MODELS.values():
        scores = make().fit(texts, labels).decision_function(texts)
        assert scores[np.array(labels) == 1].min() > scores[np.array(labels) == 0].max()
