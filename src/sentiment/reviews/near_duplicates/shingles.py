"""Overlapping runs of words, by which two texts are compared.

`shingles_of` says what they are. `hashed_shingles` returns the same for many reviews at once, as numbers: a
Python object per word would take longer than all the rest of the stage.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentiment.reviews.keys import LATIN_FOLDED, as_latin, folded

WORDS = 3
"""Words of a shingle. Between reviews of different films, few runs of three words are equal."""

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff])"
)
"""Scripts without spaces between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese)."""

_BETWEEN = b"\xff"
"""Stands between reviews; no byte of UTF-8."""

_ASCII_WORDS = bytes(
    ord(to) if byte < 128 and (to := LATIN_FOLDED[byte]).isalnum() else byte if byte > 127 else 0
    for byte in range(256)
)
"""Of UTF-8, where all but ASCII is folded already: lower case where a word is, zero elsewhere."""

_LATIN_WORDS = bytes(ord(to) if len(to) == 1 and to.isalnum() and to <= "\xff" else 32 for to in LATIN_FOLDED)
_LATIN_UNSEEN = bytes(byte for byte, to in enumerate(LATIN_FOLDED) if not to)
_ASCII_UNSEEN = bytes(byte for byte in _LATIN_UNSEEN if byte < 128)

_BLOCK = 8
_HEAD_BLOCKS = 3
_PADDING = b" " * (_BLOCK * _HEAD_BLOCKS)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_BLOCK)] + [2**64 - 1], np.uint64)
_ODD = np.array(
    # Odd numbers without a pattern: the 64-bit constants of splitmix64 and xxHash.
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9],
    np.uint64,
)


def words_of(text: str) -> list[str]:
    """Return the letters and digits of a text, word by word, without case and punctuation."""
    return _WORD.findall(_UNSPACED.sub(r" \1 ", folded(text)))


def shingles_of(text: str) -> set[tuple[str, ...]]:
    """Return each word with the two after it; the last two words have fewer."""
    words = words_of(text)
    return {tuple(words[start : start + WORDS]) for start in range(len(words))}


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """Return the Jaccard similarity of two sets of shingles, the share that both have; 0 without words."""
    shared = len(one & other)
    return shared / max(1, len(one) + len(other) - shared)


def hashed_shingles(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return a 64-bit hash of each word with the two after it, of all reviews after one another.

    Args:
        texts: In UTF-8.

    Returns:
        Hashes, shape (words,), and where each review starts, shape (reviews + 1,). Words of more than 32
        bytes that agree in their length, first 24 and last 8 bytes are taken for equal.
    """
    parts = [text if text.isascii() else _words_apart(text.decode()) for text in texts]
    buffer = _BETWEEN.join([b"", *parts, _PADDING]).translate(_ASCII_WORDS, _ASCII_UNSEEN)
    characters = np.frombuffer(buffer, np.uint8)
    in_word = (characters != 0) & (characters != ord(_BETWEEN))
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    offsets = np.searchsorted(starts, np.flatnonzero(characters == ord(_BETWEEN)))
    words = _word_hashes(buffer, starts, ends)
    following, last = words, offsets[1:][np.diff(offsets) > 0] - 1
    hashes = words * _ODD[0]
    for odd in _ODD[1:WORDS]:
        following = np.append(following[1:], np.uint64(0))
        following[last] = 0  # what follows there is another review
        hashes += following * odd
    return _mixed(hashes), offsets


def _words_apart(text: str) -> bytes:
    """Return folded words, in UTF-8, with ASCII between them."""
    latin = as_latin(text)
    if latin is not None:
        return latin.translate(_LATIN_WORDS, _LATIN_UNSEEN).decode("latin-1").encode()
    return " ".join(words_of(text)).encode()


def _word_hashes(buffer: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of each word, from its first three blocks of 8 bytes, its last 8 bytes and its length."""
    blocks = np.ndarray(len(buffer) - _BLOCK + 1, np.dtype("<u8"), buffer, strides=(1,))  # at every byte
    sizes = ends - starts
    hashes = (blocks[starts] & _MASKS[np.minimum(sizes, _BLOCK)]) * _ODD[0] + sizes.astype(np.uint64)
    for block in range(1, _HEAD_BLOCKS):
        longer = np.flatnonzero(sizes > block * _BLOCK)
        rest = _MASKS[np.minimum(sizes[longer] - block * _BLOCK, _BLOCK)]
        hashes[longer] += (blocks[starts[longer] + block * _BLOCK] & rest) * _ODD[block]
    longer = np.flatnonzero(sizes > _HEAD_BLOCKS * _BLOCK)
    hashes[longer] += blocks[ends[longer] - _BLOCK] * _ODD[_HEAD_BLOCKS]
    return _mixed(hashes)


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all, in place (the finalizer of splitmix64)."""
    for shift, odd in ((30, _ODD[1]), (27, _ODD[2])):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= odd
    hashes ^= hashes >> np.uint64(31)
    return hashes
