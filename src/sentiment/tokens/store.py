"""Token ids on disk, opened as memory maps: training reads only the pages it needs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentiment.errors import UserError
from sentiment.outputs import replacing
from sentiment.tokens.vocabulary import UNKNOWN_ID


@dataclass(frozen=True)
class TokenizedReviews:
    """One split as flat arrays.

    ids: shape (tokens,), all reviews after one another. offsets: shape (reviews + 1,), where each review
    starts and the last one ends. labels: shape (reviews,), 0 or 1. digest: of the three arrays' content.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int8]
    digest: str

    @classmethod
    def from_lists(cls, token_ids: Iterable[Sequence[int]], labels: ArrayLike) -> Self:
        """Gather token ids, a sequence per review, into flat arrays."""
        arrays = [np.asarray(ids, dtype=np.int32) for ids in token_ids]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        ids = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        label_array = np.asarray(labels, dtype=np.int8)
        return cls(ids, offsets, label_array, _digest(ids, offsets, label_array))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map the arrays of one split.

        Raises UserError where a file is missing, torn or does not fit the others.
        """
        try:
            ids, offsets, labels = (
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("ids", "offsets", "labels")
            )
            digest = json.loads((folder / "digest.json").read_text(encoding="utf-8"))["digest"]
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file; `dvc repro` or `dvc pull` makes it") from None
        except (ValueError, EOFError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: a torn token file: {error}") from None
        if len(offsets) != len(labels) + 1 or offsets[-1] != len(ids):
            raise UserError(f"{folder}: the token files do not fit each other; `dvc checkout` restores them")
        if not len(labels):
            raise UserError(f"{folder}: no reviews in it")
        if labels.min() == labels.max():
            raise UserError(f"{folder}: expected reviews with labels 0 and 1, found {labels[0]} alone")
        return cls(ids, offsets, labels, digest)

    def save(self, folder: Path) -> None:
        """Write the arrays, all or none."""
        with replacing(folder) as temporary:
            temporary.mkdir()
            for name in ("ids", "offsets", "labels"):
                np.save(temporary / f"{name}.npy", getattr(self, name), allow_pickle=False)
            (temporary / "digest.json").write_text(
                json.dumps({"digest": self.digest}) + "\n", encoding="utf-8"
            )

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
        lengths = self.lengths
        percentiles = {f"p{p}": float(np.percentile(lengths, p)) for p in (5, 50, 95, 99)}
        return {
            "tokens": len(self.ids),
            "unknown_rate": round(float(np.mean(self.ids == UNKNOWN_ID)), 6),
            "length": {**percentiles, "longest": int(lengths.max())},
        }


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # the digest that DVC uses: an identity, not a signature
    for array in arrays:
        digest.update(str((array.dtype, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
