"""A flat .npy file that grows while only the newest piece of it is in memory."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray


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
