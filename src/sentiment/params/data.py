"""Parameters of the data stages: download and tokenize."""

from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sentiment.params.section import Section
from sentiment.params.sources import AnySource

Fraction = Annotated[float, Field(gt=0, lt=1)]


class SplitFractions(Section):
    """Fraction of the reviews in each split, for sources without predefined splits."""

    train: Fraction
    """Training split: the model's weights are trained on it."""
    validation: Fraction
    """Validation split: drives early stopping, pruning, ranking of trials, calibration and threshold."""
    holdout: Fraction
    """Holdout split: decides between baseline and tuned model, and against the linear reference. It is not
    read by train and tune, so that the comparison is fair to both models."""
    test: Fraction
    """Test split: used only for the final evaluation."""

    @model_validator(mode="after")
    def _validate_sum(self) -> Self:
        if abs(self.train + self.validation + self.holdout + self.test - 1) > 1e-9:
            raise ValueError("train, validation, holdout and test must sum to 1")
        return self


class NearDuplicateLimits(Section):
    """Definition and maximum number of near-duplicates of test reviews."""

    similarity: Annotated[float, Field(ge=0.3, le=1)]
    """Minimum Jaccard similarity of the word trigrams of two near-duplicate reviews."""
    max_share: Annotated[float, Field(ge=0, le=1)]
    """Maximum fraction of test reviews with a near-duplicate in any other split."""


class ReviewChecks(Section):
    """Validation rules of the reviews. The stage fails if one is violated, and lists examples."""

    bad_rows: Literal["stop", "quarantine"]
    """What to do with invalid rows. `stop`: the stage fails. `quarantine`: they are removed and listed."""
    min_characters: PositiveInt
    """Minimum characters of a review, after whitespace is normalized."""
    max_characters: PositiveInt
    """Maximum characters of a review, after whitespace is normalized."""
    control_share: Annotated[float, Field(ge=0, le=1)]
    """Maximum fraction of control characters and replacement characters (undecodable bytes) in a review."""
    duplicates: Annotated[float, Field(ge=0, le=1)]
    """Maximum fraction of reviews that are dropped as exact duplicates."""
    near_duplicates: NearDuplicateLimits | None
    """Near-duplicates of test reviews in the other splits. Null: no search for near-duplicates."""
    imbalance: Annotated[float, Field(ge=0, le=0.5)]
    """Maximum difference between the fraction of positive reviews in a split and 0.5."""


class DownloadParams(Section):
    """Sources of the reviews, their splits and their validation."""

    sources: Annotated[tuple[AnySource, ...], Field(min_length=1, strict=False)]
    """Sources of reviews, which are merged."""
    limit: Annotated[PositiveInt | None, Field(ge=20)] = None
    """Maximum number of reviews per predefined split of a source, or per source if it has no splits; half of
    them of each label. They are sampled by the hash of their texts. Null: all reviews."""
    split: SplitFractions
    """Size of the splits."""
    recent: Annotated[float, Field(ge=0, le=0.5)]
    """Fraction of the training reviews of `incoming` sources that are held out as the split `recent`, which
    no stage reads: `sentiment retrain` reports how well a model does on them."""
    seed: NonNegativeInt
    """Seed of the splits and of the sample."""
    checks: ReviewChecks
    """Validation rules."""

    @model_validator(mode="after")
    def _validate_distinct_sources(self) -> Self:
        for one, other in combinations(self.sources, 2):
            if one.name == other.name:
                raise ValueError(f"duplicate source name: {one.name}")
            if one.kind == other.kind == "package":
                raise ValueError(f"sources {one.name} and {other.name} are the same package")
            if set(one.locations) & set(other.locations):  # not in the message: a URL may contain a password
                raise ValueError(f"sources {one.name} and {other.name} have a path or URL in common")
        return self


class TokenizeParams(Section):
    """Tokenization. The vocabulary is learned from the training split only."""

    kind: Literal["word", "bpe"]
    """Word-level vocabulary, or byte-pair encoding."""
    vocabulary_size: Annotated[int, Field(ge=100, le=1_000_000)]
    """Maximum vocabulary size, including the padding and out-of-vocabulary tokens."""
    min_frequency: PositiveInt
    """Minimum count of a word (`bpe`: of a pair of tokens) in the training split to enter the vocabulary."""
    lowercase: bool
    """Whether texts are lowercased."""
    oov_rate: Annotated[float, Field(ge=0, le=1)]
    """Maximum out-of-vocabulary rate of a split. Above it the stage fails and lists the worst reviews."""
