"""Which of two models is taken."""

from collections.abc import Mapping

from sentiment.paths import Candidate


def select(validation_auc: Mapping[Candidate, float]) -> Candidate:
    """Return the model with the higher validation AUC; the baseline where they are equal."""
    return "tuned" if validation_auc["tuned"] > validation_auc["baseline"] else "baseline"
