"""Scores of the models of the last `dvc repro`, on the reviews that neither was trained on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import rankdata

from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.intervals import estimate_auc_difference
from sentiment.model.classifier import predict_logits
from sentiment.model.model_files import load_model
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import load_tokenizer

SPLITS: tuple[paths.Split, ...] = ("validation", "holdout", "test")


@dataclass(frozen=True)
class Scores:
    """Ranks that two models give to the same reviews.

    Attributes:
        labels: true labels, 0 or 1, shape (n_reviews,).
        first: ranks by the baseline, shape (n_reviews,).
        second: ranks by the tuned model, shape (n_reviews,).
    """

    labels: NDArray[np.int8]
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.integer]) -> "Scores":
        """Return a subset of the reviews."""
        return Scores(self.labels[rows], self.first[rows], self.second[rows])

    def compute_deviation(self) -> float:
        """Return the standard error of the difference in AUC, times the square root of the reviews."""
        estimate = estimate_auc_difference(self.labels, self.first, self.second)
        return float(estimate.standard_error * np.sqrt(len(self)))


def predict_scores() -> Scores:
    """Predict the reviews of all splits but train with both models."""
    files = [paths.reviews(split) for split in SPLITS]
    tables = [read_reviews(file).select(["text", "label"]) for file in files if file.is_file()]
    reviews = encode(load_tokenizer(paths.TOKENIZER), pa.concat_tables(tables))
    first, second = (
        rankdata(predict_logits(load_model(paths.model(candidate)), reviews, candidate))
        for candidate in paths.CANDIDATES
    )
    return Scores(np.asarray(reviews.labels, dtype=np.int8), first, second)
