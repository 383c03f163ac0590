"""Exact duplicates: the key that duplicate texts share, and the selection of the rows to retain."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from sentiment.paths import Split

_TOKENIZER_NORMALIZER = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
"""Normalization of `tokens.vocabulary`. It knows letters of newer Unicode versions than Python 3.11."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters other than whitespace
    "\xad\u061c\u06dd\u070f\u0600-\u0605\u0890\u0891\u08e2\u200b-\u200f\u202a-\u202e\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f"  # category Cf: soft hyphen, zero width, direction, marks
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2060-\u206f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # Default_Ignorable_Code_Point
)
"""Invisible characters of Unicode 16: format characters, fillers, variation selectors, controls."""

_LINE_BREAK = re.compile("<br/?>")


def compute_duplicate_key(text: str) -> str:
    """Return a key that is equal for duplicate texts.

    The key ignores case in all scripts (ß equals SS, ς equals Σ, dotless i equals I), Unicode form (NFKC),
    invisible characters, HTML line breaks and whitespace, since `good!great` and `good ! great` have the same
    tokens. It contains letters, digits, punctuation and symbols. HTML entities are not decoded, because the
    model reads them as they are.
    """
    latin = encode_latin1(text)
    if latin is not None:
        key = latin.translate(_LATIN1_TABLE, _LATIN1_DELETED).decode("latin-1")
    else:
        key = unicodedata.normalize("NFKC", "".join(fold_text(text).split()))
    return _LINE_BREAK.sub("", key) if "<br" in key else key


def fold_text(text: str) -> str:
    """Normalize case and Unicode form of a text and remove invisible characters; whitespace is retained."""
    if not text.isprintable():  # may have letters that Python does not know; too slow for all texts
        text = _TOKENIZER_NORMALIZER.normalize_str(text)
    visible = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text))
    # Decomposed, because the order of marks depends on case (ᾷ). Upper case first, so that a dotless i
    # becomes I and then i, as in a copy in capital letters.
    return unicodedata.normalize("NFKC", visible.upper().casefold())


def encode_latin1(text: str) -> bytes | None:
    """Encode a text as Latin-1; return None if that fails, or if `fold_text` would add other characters.

    Nearly all English texts can be encoded, and folding them with a table takes a tenth of the time.
    """
    try:
        latin = text.encode("latin-1")
    except UnicodeEncodeError:
        return None
    return latin if text.isascii() or not any(letter in latin for letter in _LATIN1_UNFOLDABLE) else None


LATIN1_FOLDED = [fold_text(chr(byte)) for byte in range(256)]
"""`fold_text` of each Latin-1 character."""

_LATIN1_UNFOLDABLE = [bytes([byte]) for byte, to in enumerate(LATIN1_FOLDED) if len(to) > 1 or to > "\xff"]
_LATIN1_TABLE = bytes(ord(to) if len(to) == 1 and to <= "\xff" else 0 for to in LATIN1_FOLDED)
_LATIN1_DELETED = bytes(byte for byte, to in enumerate(LATIN1_FOLDED) if not to.strip())


SPLIT_PRECEDENCE: tuple[Split, ...] = ("test", "holdout", "validation", "recent", "train", "unlabelled")
"""Of duplicate reviews, the one in the first of these splits is retained; in a split, the first one."""

DIGEST_BYTES = 16
DIGEST = np.dtype((np.void, DIGEST_BYTES))


@dataclass(frozen=True)
class Duplicates:
    """Result of deduplication; arrays of shape (reviews,).

    Attributes:
        retained: whether each review is retained.
        conflicting: whether each review is labelled and a duplicate of it has the other label.
        of_test: whether each review is in another split than test, and a test review has its text.
    """

    retained: NDArray[np.bool_]
    conflicting: NDArray[np.bool_]
    of_test: NDArray[np.bool_]


def hash_texts(texts: Sequence[str]) -> NDArray[np.void]:
    """Return a 128-bit digest of the duplicate key of each text, shape (texts,)."""
    keys = (compute_duplicate_key(text).encode() for text in texts)
    digests = b"".join(hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest() for key in keys)
    return np.frombuffer(digests, dtype=DIGEST)


def compute_fingerprints(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return a 64-bit fingerprint of the duplicate key of each text, shape (texts,).

    It is the first half of the digest. Of a million texts, two different ones have the same fingerprint with
    a probability of 3e-8.
    """
    return hash_texts(texts).view(np.uint64)[::2].copy()


def find_duplicates(
    digests: NDArray[np.void], splits: NDArray[np.uint8], labels: NDArray[np.int8]
) -> Duplicates:
    """Decide which reviews are retained.

    All test reviews are retained, even duplicates, so that the test split does not depend on other sources.
    Of other duplicates, the one in the first split of SPLIT_PRECEDENCE is retained. A review is dropped if
    its text is also in the test split, or if duplicates have both labels, since the correct one is unknown.

    Args:
        digests: digests from `hash_texts`, shape (reviews,).
        splits: position of each review's split in SPLIT_PRECEDENCE, shape (reviews,).
        labels: labels, 0 or 1, or any other value for no label, shape (reviews,).
    """
    retained = np.ones(len(splits), dtype=bool)
    conflicting = np.zeros(len(splits), dtype=bool)
    of_test = np.zeros(len(splits), dtype=bool)
    is_test = splits == SPLIT_PRECEDENCE.index("test")
    halves = digests.view(np.uint64).reshape(-1, 2)
    rows = _find_repeated(halves[:, 0])  # sorting all reviews would need three times the memory
    if len(rows):
        # The sort is stable, so that the first of equal rows stays first.
        order = rows[np.lexsort((splits[rows], halves[rows, 1], halves[rows, 0]))]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        text_index = np.cumsum(is_first) - 1
        starts = np.flatnonzero(is_first)
        has_both = np.logical_and(
            *(np.logical_or.reduceat(labels[order] == label, starts) for label in (0, 1))
        )[text_index]
        conflicting[order] = has_both & np.isin(labels[order], (0, 1))
        retained[order] = is_first & ~has_both
        of_test[order] = np.logical_or.reduceat(is_test[order], starts)[text_index] & ~is_test[order]
    retained |= is_test
    return Duplicates(retained, conflicting, of_test)


def _find_repeated(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the sorted positions of the values that occur more than once."""
    order = np.argsort(values)
    ordered = values[order]
    equals_next = ordered[1:] == ordered[:-1]
    repeated = np.zeros(len(values), dtype=bool)
    repeated[order[1:][equals_next]] = True
    repeated[order[:-1][equals_next]] = True
    return np.flatnonzero(repeated)
