"""Token ids on disk, opened as memory maps: training reads only the pages it needs."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.tokens.vocabulary import UNKNOWN_ID


class ArrayFile:
    """Appends to a one-dimensional array on disk; closed, it is byte for byte what `np.save` writes.

    The header says how long the array is. It is written first for no entries and again at the end: numpy
    leaves room in it for a length of any number of digits.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._length = 0
        self._digest = new_digest(self._dtype)
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header()
        self._file.close()

    def append(self, values: NDArray[Any]) -> None:
        """Add values, shape (values,), at the end."""
        piece = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(piece.data)
        self._digest.update(piece.data)
        self._length += len(piece)

    def __len__(self) -> int:
        return self._length

    @property
    def digest(self) -> str:
        """MD5 of the type and the values so far."""
        return self._digest.hexdigest()

    def _write_header(self) -> None:
        layout = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, layout)


def array_digest(array: NDArray[Any]) -> str:
    """Return the digest that an ArrayFile with this content has."""
    digest = new_digest(array.dtype)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def new_digest(dtype: np.dtype[Any]) -> "hashlib._Hash":
    """Return the digest of an array without values."""
    # MD5 is what DVC uses: an identity, not a signature
    return hashlib.md5(dtype.str.encode(), usedforsecurity=False)


PERCENTILES = (5, 50, 95, 99)
ARRAYS = {"ids": np.int32, "offsets": np.int64, "labels": np.int8}

NO_LABEL = -1
"""Label of a review that has none."""


@dataclass(frozen=True)
class TokenizedReviews:
    """One split as flat arrays.

    ids: shape (tokens,), all reviews after one another. offsets: shape (reviews + 1,), where each review
    starts and the last one ends. labels: shape (reviews,), as int8 0 or 1, in the unlabelled split NO_LABEL;
    as float32 the probability that the review is positive (`joined`). digest: of the three arrays' content.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[Any]
    digest: str

    @classmethod
    def from_lists(cls, token_ids: Iterable[Sequence[int]], labels: ArrayLike) -> Self:
        """Gather token ids, a sequence per review, into flat arrays."""
        arrays = [np.asarray(ids, dtype=np.int32) for ids in token_ids]
        ids = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls.from_arrays(ids, np.array([len(array) for array in arrays], dtype=np.int64), labels)

    @classmethod
    def from_arrays(cls, ids: NDArray[np.int32], lengths: NDArray[np.int64], labels: ArrayLike) -> Self:
        """Take all reviews' ids after one another, and each review's length, shape (reviews,)."""
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        label_array = np.asarray(labels, dtype=np.int8)
        digest = _combined(array_digest(array) for array in (ids, offsets, label_array))
        return cls(ids, offsets, label_array, digest)

    @classmethod
    def open(cls, folder: Path, *, labelled: bool = True) -> Self:
        """Map the arrays of one split.

        labelled: False for the split of reviews without labels, which may be empty.
        Raises UserError where a file is missing, torn or does not fit the others; a labelled split also where
        it has no reviews or one class only.
        """
        try:
            ids, offsets, labels = (
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
            )
            digest = json.loads((folder / "digest.json").read_text(encoding="utf-8"))["digest"]
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file; `dvc repro` or `dvc pull` makes it") from None
        except (ValueError, EOFError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: a torn token file: {error}") from None
        if len(offsets) != len(labels) + 1 or offsets[-1] != len(ids):
            raise UserError(f"{folder}: the token files do not fit each other; `dvc checkout` restores them")
        if labelled and not len(labels):
            raise UserError(f"{folder}: no reviews in it")
        if labelled and labels.min() == labels.max():
            raise UserError(f"{folder}: expected reviews with labels 0 and 1, found {labels[0]} alone")
        return cls(ids, offsets, labels, digest)

    def save(self, folder: Path) -> None:
        """Write the arrays, all or none. Raises ValueError where labels are probabilities."""
        self._require_hard_labels()
        with writing_tokens(folder) as writer:
            writer.append(self.ids, self.lengths, self.labels)

    def joined(self, others: Self, probabilities: NDArray[np.floating]) -> Self:
        """Return these reviews and, after them, others under soft labels; the arrays are in memory.

        probabilities: shape (others,), that each of the others is positive.
        """
        ids = np.concatenate([self.ids, others.ids])
        offsets = np.concatenate([self.offsets, others.offsets[1:] + self.offsets[-1]])
        labels = np.concatenate([self.labels, probabilities], dtype=np.float32)
        digest = _combined((self.digest, others.digest, array_digest(labels)))
        return type(self)(ids, offsets, labels, digest)

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        """Return some of the reviews, in the order of `rows`, shape (taken,); the arrays are in memory.

        Raises ValueError where labels are probabilities.
        """
        self._require_hard_labels()
        ids = [np.empty(0, dtype=np.int32), *(self[row] for row in rows)]
        return type(self).from_arrays(np.concatenate(ids), self.lengths[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, review: int) -> NDArray[np.int32]:
        """Return one review's token ids, shape (tokens of it,)."""
        return self.ids[self.offsets[review] : self.offsets[review + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each review, shape (reviews,)."""
        return np.diff(self.offsets)

    def describe(self) -> dict[str, Any]:
        """Figures for a metric file: tokens, unknown-word rate, percentiles of length."""
        return _figures(self.lengths, _unknown(self.ids))

    def _require_hard_labels(self) -> None:
        if self.labels.dtype != ARRAYS["labels"]:
            raise ValueError(f"labels are {self.labels.dtype}, not {np.dtype(ARRAYS['labels'])}")


class TokenWriter:
    """Appends reviews to one split on disk. Memory holds what is being appended, and each review's length."""

    def __init__(self, ids: ArrayFile, offsets: ArrayFile, labels: ArrayFile) -> None:
        self._ids, self._offsets, self._labels = ids, offsets, labels
        self._lengths: list[NDArray[np.int32]] = []
        self._unknown = 0
        offsets.append(np.zeros(1))

    def append(self, ids: NDArray[np.int32], lengths: NDArray[np.int64], labels: NDArray[np.int8]) -> None:
        """Add reviews.

        ids: all of theirs after one another, shape (tokens,). lengths and labels: shape (reviews,).
        """
        self._offsets.append(len(self._ids) + np.cumsum(lengths))
        self._ids.append(ids)
        self._labels.append(labels)
        self._lengths.append(lengths.astype(np.int32))
        self._unknown += _unknown(ids)

    @property
    def digest(self) -> str:
        """The digest of the same reviews as TokenizedReviews."""
        return _combined(array.digest for array in (self._ids, self._offsets, self._labels))

    def describe(self) -> dict[str, Any]:
        """Figures for a metric file, those of TokenizedReviews."""
        return _figures(np.concatenate([np.empty(0, np.int32), *self._lengths]), self._unknown)


@contextmanager
def writing_tokens(folder: Path) -> Iterator[TokenWriter]:
    """Write one split, batch after batch; the folder appears whole or not at all.

    The bytes do not depend on how the reviews are cut into batches.
    """
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        with ExitStack() as stack:
            files = [
                stack.enter_context(ArrayFile(temporary / f"{name}.npy", dtype))
                for name, dtype in ARRAYS.items()
            ]
            writer = TokenWriter(*files)
            yield writer
        digest = json.dumps({"digest": writer.digest}) + "\n"
        (temporary / "digest.json").write_text(digest, encoding="utf-8")


def _combined(digests: Iterable[str]) -> str:
    """Return the digest of a split, of its arrays' digests: each of those can be had in a stream."""
    return hashlib.md5(" ".join(digests).encode(), usedforsecurity=False).hexdigest()


def _unknown(ids: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(ids == UNKNOWN_ID))


def _figures(lengths: NDArray[np.integer[Any]], unknown: int) -> dict[str, Any]:
    """Describe reviews, none with zeros; `lengths` is reordered, not copied: it grows with the reviews."""
    tokens = int(lengths.sum())
    lengths = lengths if len(lengths) else np.zeros(1, np.int32)
    percentiles = np.percentile(lengths, PERCENTILES, overwrite_input=True).tolist()
    return {
        "tokens": tokens,
        "oov_rate": round(unknown / max(tokens, 1), 6),
        "length": {
            **{f"p{p}": length for p, length in zip(PERCENTILES, percentiles, strict=True)},
            "longest": int(lengths.max()),
        },
    }
