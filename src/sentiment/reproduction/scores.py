"""Scores of the test split by a model of a commit, and by the one that was made again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.data.parquet import read_reviews_with_origin
from sentiment.evaluation.evaluated_model import encode_groups
from sentiment.evaluation.verdict import Verdict, compare_scores
from sentiment.model.classifier import compute_probabilities, predict_logits
from sentiment.model.predictor import Predictor

MAX_PROBABILITY_DIFFERENCE = 0.03
"""Maximum mean absolute difference of the probabilities of two models that other hardware explains.

A chosen bound. On the small cut of the tests, torch and oneDNN without AVX-512 change them by less than
0.0001; in bf16 in place of fp32, more is expected.
"""


@dataclass(frozen=True)
class ScoreComparison:
    """Comparison of a commit's model with the one that was made again, on the test split.

    Attributes:
        reviews: number of reviews.
        probability_difference: mean absolute difference of the probabilities of a positive review.
        verdict: verdict on the second model, with the first one as reference.
        reverse_verdict: verdict on the first model, with the second one as reference.
    """

    reviews: int
    probability_difference: float
    verdict: Verdict
    reverse_verdict: Verdict

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the scores differ by no more than other hardware explains."""
        return self.probability_difference <= MAX_PROBABILITY_DIFFERENCE and (
            self.verdict == self.reverse_verdict == "no worse"
        )

    def __str__(self) -> str:
        return (
            f"scores of {self.reviews:,} test reviews: mean difference of the probabilities "
            f"{self.probability_difference:.4f} (tolerance {MAX_PROBABILITY_DIFFERENCE}); the new model is "
            f"{self.verdict!r} compared with the committed one, which is {self.reverse_verdict!r} compared "
            "with the new one"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as it is printed in JSON."""
        return asdict(self)


def compare_models(
    committed: Predictor, remade: Predictor, reviews: Path, evaluate: Mapping[str, Any]
) -> ScoreComparison:
    """Compare the scores of two models on the test split.

    Args:
        committed: model of the commit.
        remade: the model that was made again.
        reviews: Parquet file of the test split.
        evaluate: section `evaluate` of the commit's parameters, with the margin and the confidence level.

    Raises:
        UserError: the scores of a model are not finite.
    """
    table = read_reviews_with_origin(reviews)
    labels, groups = table["label"].to_numpy(), encode_groups(table["group"].to_pandas())
    logits, probabilities = [], []
    for predictor in (committed, remade):
        encoded = predictor.encode(table["text"].to_pylist())
        logits.append(
            predict_logits(predictor.model, encoded.tokens, description=None, ngrams=encoded.ngrams)
        )
        probabilities.append(compute_probabilities(logits[-1], predictor.temperature))
    first, second = (
        compare_scores(
            labels,
            scores,
            reference,
            groups=groups,
            confidence_level=evaluate["confidence_level"],
            margin=evaluate["margin"],
        )
        for scores, reference in (logits[::-1], logits)
    )
    difference = float(np.abs(probabilities[0] - probabilities[1]).mean())
    return ScoreComparison(len(labels), difference, first.verdict, second.verdict)
