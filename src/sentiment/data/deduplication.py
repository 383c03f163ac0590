"""Exact duplicates: the key by which texts count as equal, and which row of several is kept."""

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
"""What `tokens.vocabulary` does at most to a text: its tables know newer letters than Python 3.11's."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters other than white space
    "\xad\u061c\u06dd\u070f\u0600-\u0605\u0890\u0891\u08e2\u200b-\u200f\u202a-\u202e\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f"  # category Cf: soft hyphen, zero widths, directions, marks
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2060-\u206f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # Default_Ignorable_Code_Point
)
"""Characters that show nothing, by Unicode 16: format characters, fillers, variation selectors, controls."""

_LINE_BREAK = re.compile("<br/?>")


def compute_duplicate_key(text: str) -> str:
    """Return what two texts have in common exactly where they count as the same review.

    Left out: case in every script (ß is SS, ς is Σ, a dotless i is I), Unicode form (NFKC), characters that
    show nothing, HTML line breaks, and white space, since `good!great` and `good ! great` are the same
    tokens. What stays are letters, digits, punctuation and symbols. HTML entities stay as they are written,
    as the model sees them.
    """
    latin = encode_latin1(text)
    if latin is not None:
        key = latin.translate(_LATIN1_TABLE, _LATIN1_DELETED).decode("latin-1")
    else:
        key = unicodedata.normalize("NFKC", "".join(fold_text(text).split()))
    return _LINE_BREAK.sub("", key) if "<br" in key else key


def fold_text(text: str) -> str:
    """Return text without case, Unicode form and characters that show nothing; white space stays."""
    if (
        not text.isprintable()
    ):  # may hold letters that Python's tables lack; slow, so no other text goes there
        text = _TOKENIZER_NORMALIZER.normalize_str(text)
    shown = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text))
    # Decomposed, since marks change their order with case (ᾷ). Upper case first: a dotless i becomes I and
    # then i, as in a copy in capitals.
    return unicodedata.normalize("NFKC", shown.upper().casefold())


def encode_latin1(text: str) -> bytes | None:
    """Return text as Latin-1 where `folded` turns each of its characters into one of Latin-1 or none.

    That is nearly all of English text, and a table folds it in a tenth of the time.
    """
    try:
        latin = text.encode("latin-1")
    except UnicodeEncodeError:
        return None
    return latin if text.isascii() or not any(letter in latin for letter in _LATIN1_UNFOLDABLE) else None


LATIN1_FOLDED = [fold_text(chr(byte)) for byte in range(256)]
"""What becomes of each character of Latin-1."""

_LATIN1_UNFOLDABLE = [bytes([byte]) for byte, to in enumerate(LATIN1_FOLDED) if len(to) > 1 or to > "\xff"]
_LATIN1_TABLE = bytes(ord(to) if len(to) == 1 and to <= "\xff" else 0 for to in LATIN1_FOLDED)
_LATIN1_DELETED = bytes(byte for byte, to in enumerate(LATIN1_FOLDED) if not to.strip())


SPLIT_PRECEDENCE: tuple[Split, ...] = ("test", "validation", "train", "unlabelled")
"""Of equal reviews the one in the first of these splits stays, and of those in one split the first."""

DIGEST_BYTES = 16
DIGEST = np.dtype((np.void, DIGEST_BYTES))


@dataclass(frozen=True)
class Duplicates:
    """What was decided, each array of shape (reviews,).

    kept: which reviews stay. conflicting: which labelled reviews have an equal text with the other label.
    """

    retained: NDArray[np.bool_]
    conflicting: NDArray[np.bool_]


def hash_texts(texts: Sequence[str]) -> NDArray[np.void]:
    """Return a 128-bit digest per text, shape (texts,), equal for texts with one key."""
    keys = (compute_duplicate_key(text).encode() for text in texts)
    digests = b"".join(hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest() for key in keys)
    return np.frombuffer(digests, dtype=DIGEST)


def find_duplicates(
    digests: NDArray[np.void], splits: NDArray[np.uint8], labels: NDArray[np.int8]
) -> Duplicates:
    """Decide which reviews stay.

    The test split stays whole, duplicates and contradictions within it included: nothing that arrives
    elsewhere changes what is evaluated. Outside test nothing stays of a text that stands there, or in test,
    with both labels: which of them is right, nobody knows, and the order of the rows does not either.

    Args:
        digests: Shape (reviews,), of `hash_texts`.
        splits: Shape (reviews,), positions in SPLIT_PRECEDENCE.
        labels: Shape (reviews,), 0 or 1; anything else is no label.
    """
    kept = np.ones(len(splits), dtype=bool)
    conflicting = np.zeros(len(splits), dtype=bool)
    halves = digests.view(np.uint64).reshape(-1, 2)
    rows = _find_repeated(halves[:, 0])  # all of them would need three times the memory
    if len(rows):
        order = rows[np.lexsort((splits[rows], halves[rows, 1], halves[rows, 0]))]  # stable: first row first
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        text = np.cumsum(is_first) - 1
        starts = np.flatnonzero(is_first)
        has_both = np.logical_and(
            *(np.logical_or.reduceat(labels[order] == label, starts) for label in (0, 1))
        )[text]
        conflicting[order] = has_both & np.isin(labels[order], (0, 1))
        kept[order] = is_first & ~has_both
    kept |= splits == SPLIT_PRECEDENCE.index("test")
    return Duplicates(kept, conflicting)


def _find_repeated(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the positions, in order, of the values that stand elsewhere too."""
    order = np.argsort(values)
    ordered = values[order]
    equals_next = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(values), dtype=bool)
    shared[order[1:][equals_next]] = True
    shared[order[:-1][equals_next]] = True
    return np.flatnonzero(shared)
