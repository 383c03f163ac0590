"""Rows to learn from that the champion has not learned from, and rows that are gone."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.comparison import fetch_output
from sentiment.data.deduplication import SPLIT_PRECEDENCE, compute_fingerprints
from sentiment.data.parquet import read_reviews_with_origin, stream_texts
from sentiment.data.removal import RemovalList
from sentiment.data.validation import shorten
from sentiment.errors import UserError
from sentiment.files import compute_file_md5, compute_md5
from sentiment.stage_inputs import CommitTree
from sentiment.verification.lock import Project
from sentiment.verification.outputs import find_cached

EXCERPT_CHARACTERS = 60
"""Characters of a text that a report quotes."""


@dataclass(frozen=True)
class Rows:
    """Labelled reviews that a model learns from: of the splits train and validation.

    Attributes:
        table: reviews with the columns of `parquet.ORIGIN_SCHEMA`.
    """

    table: pa.Table

    @classmethod
    def read(cls, folder: Path = paths.REVIEWS) -> "Rows":
        """Read the rows from a folder with the files of the splits."""
        files = [folder / paths.reviews(split).name for split in paths.LEARNING_SPLITS]
        return cls(pa.concat_tables(read_reviews_with_origin(file) for file in files))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, selected: NDArray[np.bool_] | NDArray[np.intp]) -> "Rows":
        """Return the rows in a mask, or at some positions."""
        positions = np.flatnonzero(selected) if selected.dtype == bool else selected
        return Rows(self.table.take(pa.array(positions)))

    @cached_property
    def texts(self) -> list[str]:
        """Texts, in the order of the rows."""
        return list(self.table["text"].to_pylist())

    @cached_property
    def labels(self) -> NDArray[np.int8]:
        """Labels, 0 or 1, shape (rows,)."""
        return np.array(self.table["label"].to_numpy())

    @cached_property
    def sources(self) -> NDArray[np.str_]:
        """Names of the sources, shape (rows,)."""
        return np.array(self.table["source"].to_pylist(), dtype=str)

    @cached_property
    def locations(self) -> list[tuple[str, str]]:
        """Source of each row, and its location in the source."""
        return list(zip(self.table["source"].to_pylist(), self.table["row"].to_pylist(), strict=True))

    @cached_property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Fingerprints of the texts, shape (rows,)."""
        return compute_fingerprints(self.texts)

    def list_sorted(self) -> list[tuple[str, int]]:
        """Return texts and labels, sorted: independent of the order of the rows and of where they are."""
        return sorted(zip(self.texts, self.labels.tolist(), strict=True))

    def describe(self, row: int, remark: str = "") -> str:
        """Return the source and the location of a row, a remark, and the beginning of its text."""
        source, location = self.locations[row]
        text = shorten(self.texts[row])
        excerpt = text if len(text) <= EXCERPT_CHARACTERS else f"{text[:EXCERPT_CHARACTERS]}…"
        return f"{source}: {location}: {remark}{excerpt}"


@dataclass(frozen=True)
class DataChange:
    """How the data of the working tree differs from what the champion has learned from.

    Attributes:
        known: rows that the champion has learned from with the same label.
        new: the other rows that a model would learn from: new texts, and texts with another label.
        relabelled: number of texts in `new` that the champion has learned from with another label; None if
            the champion's rows are not available.
        lost: fingerprints of texts that the champion has learned from and that neither a split nor the
            removal list has any more, sorted, shape (texts,).
        seen: number of texts that the champion has learned from.
        has_changed: whether the rows, texts and labels, are others than those that the champion has learned
            from. Rows that moved between train and validation are the same; removed ones make a difference,
            although they are neither new nor lost. True if the champion's rows are not available.
        before: rows that the champion has learned from; None if they are not available.
    """

    known: Rows
    new: Rows
    relabelled: int | None
    lost: NDArray[np.uint64]
    seen: int
    has_changed: bool
    before: Rows | None

    def compute_digest(self) -> str | None:
        """Return an MD5 digest of the new rows and the lost texts; None if there are neither.

        It does not depend on the order of the rows, nor on where they are. Texts that differ in case or white
        space have different digests, although their fingerprints are equal.
        """
        if not len(self.new) and not len(self.lost):
            return None
        content = json.dumps([self.new.list_sorted(), self.lost.tolist()], ensure_ascii=False)
        return compute_md5(content.encode(errors="surrogatepass"))


def find_change(seen_texts: NDArray[np.uint64], commit: str) -> DataChange:
    """Compare `data/reviews` with what the champion has learned from.

    A row is new if the champion has not learned from its text, wherever it comes from: from a source, or from
    a split that no model learns from, after a change of `download.seed` for example. A text is lost if no
    split has it any more; a text that moved to another split is not lost.

    Args:
        seen_texts: fingerprints of the texts that the champion has learned from, shape (texts,).
        commit: commit of the champion. Its rows, which show changed labels, are read from DVC's cache or
            remote; without them, only new texts are found.
    """
    rows, before = Rows.read(), _read_rows_of(commit)
    is_new, relabelled = ~np.isin(rows.fingerprints, seen_texts), None
    if before is not None:
        learned = np.isin(_pair(rows), _pair(before))
        relabelled = int((~learned & np.isin(rows.fingerprints, before.fingerprints)).sum())
        is_new |= ~learned
    present = [
        compute_fingerprints(texts)
        for split in SPLIT_PRECEDENCE
        if split not in paths.LEARNING_SPLITS
        for texts in stream_texts(paths.reviews(split))
    ]
    present += [rows.fingerprints, RemovalList.load(paths.REMOVED).fingerprints]
    lost = np.setdiff1d(seen_texts, np.concatenate(present))
    has_changed = before is None or rows.list_sorted() != before.list_sorted()
    return DataChange(
        rows.take(~is_new), rows.take(is_new), relabelled, lost, len(seen_texts), has_changed, before
    )


def has_other_unlabelled(commit: str) -> bool:
    """Return whether the unlabelled reviews are others than those of a commit.

    Args:
        commit: commit of the champion. Without its file in cache or remote, they count as others.
    """
    file = paths.reviews("unlabelled")
    with tempfile.TemporaryDirectory() as folder:
        try:
            _provide(file, commit, _list_reviews(commit), Path(folder))
        except UserError:
            return True
        former, current = (sorted(chain(*stream_texts(path))) for path in (Path(folder) / file.name, file))
    return former != current


def _pair(rows: Rows) -> NDArray[np.uint64]:
    """Return a number for each pair of text and label, shape (rows,)."""
    return rows.fingerprints ^ rows.labels.astype(np.uint64)


def _read_rows_of(commit: str) -> Rows | None:
    """Return the rows of a commit; None if its files are neither here nor in DVC's cache or remote."""
    recorded = _list_reviews(commit)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for split in paths.LEARNING_SPLITS:
                _provide(paths.reviews(split), commit, recorded, Path(folder))
            return Rows.read(Path(folder))
        except UserError:
            return None


def _list_reviews(commit: str) -> dict[str, str]:
    """Return the MD5 of each file that download wrote in a commit, by its path."""
    return Project(CommitTree(commit), commit).list_outputs("download")


def _provide(file: Path, commit: str, recorded: Mapping[str, str], folder: Path) -> None:
    """Link the file of a commit into a folder if it is on this machine, or fetch it.

    Raises:
        UserError: neither DVC's cache nor a remote has it.
    """
    md5 = recorded.get(file.as_posix())
    is_same = md5 is not None and md5 == compute_file_md5(file)
    local = file if is_same else find_cached(md5) if md5 else None
    if local is None:
        fetch_output(commit, file, folder / file.name)
    else:
        (folder / file.name).symlink_to(local.resolve())
