"""The removal list: keys of reviews that must not be learned from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentiment.data.deduplication import compute_fingerprints
from sentiment.errors import UserError
from sentiment.text import normalize_text

KEY = re.compile("[0-9a-f]{16}")
COMMENT = "#"


def compute_keys(texts: Sequence[str]) -> list[str]:
    """Return the key of each text: its fingerprint as 16 hexadecimal digits.

    Texts that are duplicates of each other have the same key. A key does not show the text, but who knows a
    text can see whether its key is listed.
    """
    return [
        format_key(fingerprint) for fingerprint in compute_fingerprints([normalize_text(t) for t in texts])
    ]


def format_key(fingerprint: np.uint64) -> str:
    """Return the key of a fingerprint."""
    return f"{int(fingerprint):016x}"


@dataclass(frozen=True)
class RemovalList:
    """Reviews that must not be learned from.

    Attributes:
        fingerprints: sorted fingerprints of the listed texts, shape (keys,).
    """

    fingerprints: NDArray[np.uint64]

    @classmethod
    def load(cls, path: Path) -> "RemovalList":
        """Read a file with one key per line; a missing file is an empty list.

        Raises:
            UserError: a line is neither empty nor a comment nor a key.
        """
        return cls.parse(path.read_bytes() if path.exists() else b"", path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "RemovalList":
        """Parse the content of the file `path`, as `load` does."""
        fingerprints = []
        for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), start=1):
            key = line.partition(COMMENT)[0].strip()
            if not key:
                continue
            if not KEY.fullmatch(key):
                raise UserError(
                    f"{path} line {number}: expected the key of a review, 16 digits from 0 to 9 and a to f, "
                    "as `sentiment key` prints it; a comment starts with #"
                )
            fingerprints.append(int(key, 16))
        return cls(np.unique(np.array(fingerprints, np.uint64)))

    def contains(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether each text, which must be normalized, is listed, shape (texts,)."""
        if not len(self.fingerprints):
            return np.zeros(len(texts), dtype=bool)
        return np.isin(compute_fingerprints(texts), self.fingerprints)
