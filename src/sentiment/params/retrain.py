"""Parameters of scheduled retraining: the data gate and the model gate. No stage depends on them."""

from typing import Annotated

from pydantic import Field

from sentiment.params.section import Section

Fraction = Annotated[float, Field(gt=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class DataGateLimits(Section):
    """Limits for a batch of new rows; a retraining with a batch that exceeds one stops before training."""

    min_rows: Annotated[int, Field(ge=50)]
    """Fewest new rows that are compared with what the champion has learned from. Of fewer, only the schema is
    validated, and that no rows were lost. For `duplicates` and `duplicates_of_test`, the rows that download
    dropped count as well. `disagreement` applies to known rows, too, if the champion's are not available."""
    growth: Annotated[float, Field(gt=1)]
    """Maximum ratio of the rows of a batch to those of the batch before, or of that to this."""
    lost: Fraction
    """Maximum fraction of the rows that the champion has learned from and that no split has any more, of all
    sources and of each one."""
    positive: Fraction
    """Maximum difference between the fractions of positive reviews in the batch and in the known rows."""
    duplicates: Fraction
    """Maximum fraction of rows that download dropped as duplicates, among the new rows and these."""
    duplicates_of_test: Fraction
    """Maximum fraction of rows that are duplicates or near-duplicates of test reviews, among the same."""
    oov_rate: Fraction
    """Maximum increase of the out-of-vocabulary rate, with the champion's vocabulary."""
    upper_case: Fraction
    """Maximum difference between the fractions of letters in upper case."""
    length_psi: Annotated[float, Field(gt=0)]
    """Maximum population stability index of the review lengths, over the deciles of the known rows."""
    length_ks: Fraction
    """Maximum Kolmogorov-Smirnov statistic of the review lengths."""
    disagreement: Fraction
    """Maximum fraction of the rows whose label the champion gives a probability below 0.1, in excess of the
    fraction that it expects itself."""


class RetrainParams(Section):
    """Scheduled retraining: what may be trained on, and which model may become the champion."""

    looks: Annotated[int, Field(ge=1)]
    """Number of models that one test split may be used to decide on; each look has a level of 0.025 divided
    by this number."""
    max_margin: Annotated[float, Field(gt=0, lt=0.5)]
    """Largest AUC by which a model may be lower and still count as no worse, where the test split is too
    small for `evaluate.margin`."""
    beat_linear: bool
    """Whether a model must be better than the linear reference to be promoted."""
    accept: Annotated[tuple[Digest, ...], Field(strict=False)]
    """Digests of batches that exceed a limit of the data gate and that are accepted all the same."""
    data: DataGateLimits
    """Limits for new rows."""
