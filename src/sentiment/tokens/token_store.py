"""Token arrays on disk, opened as memory maps, so that training reads only the pages that it needs."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
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
    """Writes a one-dimensional array to a file in parts; the file is identical to one that `np.save` writes.

    The header contains the length of the array. It is first written with length 0 and rewritten when the file
    is closed: numpy pads it so that any length fits.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._length = 0
        self._digest = _new_digest(self._dtype)
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
        """Append the values of a one-dimensional array."""
        contiguous = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(contiguous.data)
        self._digest.update(contiguous.data)
        self._length += len(contiguous)

    def __len__(self) -> int:
        return self._length

    @property
    def digest(self) -> str:
        """MD5 digest of the dtype and the values appended so far."""
        return self._digest.hexdigest()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, header)


def compute_array_digest(array: NDArray[Any]) -> str:
    """Return the MD5 digest of a one-dimensional array, equal to `ArrayFile.digest` for the same values."""
    digest = _new_digest(array.dtype)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _new_digest(dtype: np.dtype[Any]) -> "hashlib._Hash":
    # MD5, as in DVC: it only has to detect changes, not attacks
    return hashlib.md5(dtype.str.encode(), usedforsecurity=False)


PERCENTILES = (5, 50, 95, 99)
"""Percentiles of the review lengths that the metrics contain."""

ARRAYS = {"ids": np.int32, "offsets": np.int64, "labels": np.int8}
"""Name and dtype of each array of a split; the files are named after the arrays."""

NO_LABEL = -1
"""Label of an unlabelled review."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value; two objects are equal if identical
class TokenizedReviews:
    """The tokenized reviews of one split, as flat arrays."""

    ids: NDArray[np.int32]
    """Token ids of all reviews, concatenated, shape (tokens,)."""
    offsets: NDArray[np.int64]
    """Start of each review in `ids`, and the end of the last one, shape (reviews + 1,)."""
    labels: NDArray[Any]
    """Labels, shape (reviews,). Hard labels are int8: 0, 1, or NO_LABEL in the unlabelled split. Soft labels,
    which `concatenate` creates, are float32: the probability that the review is positive."""
    digest: str
    """MD5 digest of the contents of the three arrays."""

    @classmethod
    def from_lists(cls, token_ids: Iterable[Sequence[int]], labels: ArrayLike) -> Self:
        """Build a split from one sequence of token ids per review."""
        arrays = [np.asarray(ids, dtype=np.int32) for ids in token_ids]
        ids = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls.from_arrays(ids, np.array([len(array) for array in arrays], dtype=np.int64), labels)

    @classmethod
    def from_arrays(cls, ids: NDArray[np.int32], lengths: NDArray[np.int64], labels: ArrayLike) -> Self:
        """Build a split from concatenated token ids.

        Args:
            ids: token ids of all reviews, concatenated, shape (tokens,).
            lengths: number of tokens in each review, shape (reviews,).
            labels: hard labels, shape (reviews,).
        """
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        label_array = np.asarray(labels, dtype=np.int8)
        digest = _combine_digests(compute_array_digest(array) for array in (ids, offsets, label_array))
        return cls(ids, offsets, label_array, digest)

    def to_plain_arrays(self) -> Self:
        """Return the same reviews, with numpy's own arrays in place of memory maps."""
        ids, offsets, labels = (np.asarray(array) for array in (self.ids, self.offsets, self.labels))
        return replace(self, ids=ids, offsets=offsets, labels=labels)

    @classmethod
    def open(cls, folder: Path, *, labelled: bool = True) -> Self:
        """Memory-map the arrays of one split.

        Args:
            folder: folder of the split.
            labelled: False for the unlabelled split, which may be empty.

        Raises:
            UserError: a file is missing or corrupt, the files are inconsistent, or a labelled split is empty
                or has only one class.
        """
        try:
            ids, offsets, labels = (
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
            )
            digest = json.loads((folder / "digest.json").read_text(encoding="utf-8"))["digest"]
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename}: no such file; create it with `dvc repro` or `dvc pull`"
            ) from None
        except (ValueError, EOFError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: truncated or corrupt token file: {error}") from None
        if len(offsets) != len(labels) + 1 or offsets[-1] != len(ids):
            raise UserError(f"{folder}: inconsistent token files; restore them with `dvc checkout`")
        if labelled and not len(labels):
            raise UserError(f"{folder}: contains no reviews")
        if labelled and labels.min() == labels.max():
            raise UserError(f"{folder}: expected reviews with labels 0 and 1, found only label {labels[0]}")
        return cls(ids, offsets, labels, digest)

    def save(self, folder: Path) -> None:
        """Write the arrays atomically.

        Raises:
            ValueError: the labels are soft.
        """
        self._require_hard_labels()
        with open_token_writer(folder) as writer:
            writer.append(self.ids, self.lengths, self.labels)

    def concatenate(self, others: Self, probabilities: NDArray[np.floating]) -> Self:
        """Return these reviews followed by pseudo-labelled ones, in new arrays in memory, with soft labels.

        Args:
            others: reviews to append.
            probabilities: probability that each appended review is positive, shape (others,).
        """
        ids = np.concatenate([self.ids, others.ids])
        offsets = np.concatenate([self.offsets, others.offsets[1:] + self.offsets[-1]])
        labels = np.concatenate([self.labels, probabilities], dtype=np.float32)
        digest = _combine_digests((self.digest, others.digest, compute_array_digest(labels)))
        return type(self)(ids, offsets, labels, digest)

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        """Return a subset of the reviews, in the order of `rows`, in new arrays in memory.

        Args:
            rows: indices of the reviews, shape (selected,).

        Raises:
            ValueError: the labels are soft.
        """
        self._require_hard_labels()
        ids = [np.empty(0, dtype=np.int32), *(self[row] for row in rows)]
        return type(self).from_arrays(np.concatenate(ids), self.lengths[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, review: int) -> NDArray[np.int32]:
        """Return the token ids of one review, shape (tokens,)."""
        return self.ids[self.offsets[review] : self.offsets[review + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens in each review, shape (reviews,)."""
        return np.diff(self.offsets)

    def describe(self) -> dict[str, Any]:
        """Return metrics: number of tokens, out-of-vocabulary rate, percentiles and maximum of lengths."""
        return _compute_metrics(self.lengths, _count_oov(self.ids))

    def _require_hard_labels(self) -> None:
        if self.labels.dtype != ARRAYS["labels"]:
            raise ValueError(f"labels are {self.labels.dtype}, not {np.dtype(ARRAYS['labels'])}")


class TokenWriter:
    """Appends reviews to a split on disk. Of the appended reviews, only the lengths stay in memory."""

    def __init__(self, ids: ArrayFile, offsets: ArrayFile, labels: ArrayFile) -> None:
        self._ids, self._offsets, self._labels = ids, offsets, labels
        self._lengths: list[NDArray[np.int32]] = []
        self._oov_tokens = 0
        offsets.append(np.zeros(1))

    def append(self, ids: NDArray[np.int32], lengths: NDArray[np.int64], labels: NDArray[np.int8]) -> None:
        """Append reviews.

        Args:
            ids: token ids of the reviews, concatenated, shape (tokens,).
            lengths: number of tokens in each review, shape (reviews,).
            labels: hard labels, shape (reviews,).
        """
        self._offsets.append(len(self._ids) + np.cumsum(lengths))
        self._ids.append(ids)
        self._labels.append(labels)
        self._lengths.append(lengths.astype(np.int32))
        self._oov_tokens += _count_oov(ids)

    @property
    def digest(self) -> str:
        """Digest of the reviews appended so far, equal to `TokenizedReviews.digest` of the same reviews."""
        return _combine_digests(array.digest for array in (self._ids, self._offsets, self._labels))

    def describe(self) -> dict[str, Any]:
        """Return the same metrics as `TokenizedReviews.describe`."""
        return _compute_metrics(np.concatenate([np.empty(0, np.int32), *self._lengths]), self._oov_tokens)


@contextmanager
def open_token_writer(folder: Path) -> Iterator[TokenWriter]:
    """Open a writer for a split; the folder is created only if the block completes without an error.

    The files do not depend on how the reviews are divided into batches.
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


def _combine_digests(digests: Iterable[str]) -> str:
    """Combine the digests of a split's arrays into one; each array can thus be hashed while it is written."""
    return hashlib.md5(" ".join(digests).encode(), usedforsecurity=False).hexdigest()


def _count_oov(ids: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(ids == UNKNOWN_ID))


def _compute_metrics(lengths: NDArray[np.integer[Any]], oov_tokens: int) -> dict[str, Any]:
    """Return the metrics of a split; all are 0 if it is empty.

    Args:
        lengths: number of tokens in each review, shape (reviews,). The array is reordered in place to save
            the memory of a copy.
        oov_tokens: number of out-of-vocabulary tokens.
    """
    tokens = int(lengths.sum())
    lengths = lengths if len(lengths) else np.zeros(1, np.int32)
    percentiles = np.percentile(lengths, PERCENTILES, overwrite_input=True).tolist()
    return {
        "tokens": tokens,
        "oov_rate": round(oov_tokens / max(tokens, 1), 6),
        "length": {
            **{f"p{p}": length for p, length in zip(PERCENTILES, percentiles, strict=True)},
            "max": int(lengths.max()),
        },
    }
