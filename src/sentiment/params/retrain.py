"""Parameters of scheduled retraining: the data gate and the model gate. No stage depends on them."""

from typing import Annotated

from pydantic import Field

from sentiment.params.section import Section

Fraction = Annotated[float, Field(gt=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class DataGateLimits(Section):
    """Limits for a batch of new rows; a retraining with a batch that exceeds one stops before training."""

    min_rows: Annotated[int, Field(ge=50)]
    """Fewest new rows that are compared with the champion's training data; fewer are only validated."""
    growth: Annotated[float, Field(gt=1)]
    """Maximum ratio of the rows of a batch to those of the batch before, or of that to this."""
    lost: Fraction
    """Maximum fraction of the rows that the champion has learned from and that the sources do not have any
    more."""
    positive: Fraction
    """Maximum difference between the fraction of positive reviews in the batch and in the champion's training
    data."""
    duplicates: Fraction
    """Maximum fraction of the rows of the changed files that are duplicates of other reviews or
    near-duplicates of test reviews."""
    oov_rate: Fraction
    """Maximum increase of the out-of-vocabulary rate, with the champion's vocabulary."""
    length_psi: Annotated[float, Field(gt=0)]
    """Maximum population stability index of the review lengths."""
    length_ks: Fraction
    """Maximum Kolmogorov-Smirnov statistic of the review lengths."""
    disagreement: Fraction
    """Maximum fraction of the rows whose label the champion considers improbable (below 0.1)."""


class RetrainParams(Section):
    """Scheduled retraining: what may be trained on, and which model may become the champion."""

    looks: Annotated[int, Field(ge=1)]
    """Number of models that one test split may be used to decide on; each look has a level of 0.025 divided
    by this number."""
    beat_linear: bool
    """Whether a model must be better than the linear reference to be promoted."""
    accept: Annotated[tuple[Digest, ...], Field(strict=False)]
    """Digests of batches that exceed a limit of the data gate and that are accepted all the same."""
    data: DataGateLimits
    """Limits for new rows."""
