"""Shingles of texts, their MinHash signatures, and an index of the signatures."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from sentiment.data.deduplication import LATIN1_FOLDED, encode_latin1, fold_text

SHINGLE_WORDS = 3
"""Number of words in a shingle. Reviews of different films have few word trigrams in common."""

_WORD = re.compile(r"[^\W_]+")
_UNSPACED_SCRIPTS = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff])"
)
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

_SEPARATOR = b"\xff"
"""Separator of reviews. UTF-8 has no such byte."""

_ASCII_WORDS = bytes(
    ord(to) if byte < 128 and (to := LATIN1_FOLDED[byte]).isalnum() else byte if byte > 127 else 0
    for byte in range(256)
)
"""Translation table for folded UTF-8: letters become lowercase, other ASCII characters except digits zero."""

_LATIN1_WORDS = bytes(
    ord(to) if len(to) == 1 and to.isalnum() and to <= "\xff" else 32 for to in LATIN1_FOLDED
)
_LATIN1_INVISIBLE = bytes(byte for byte, to in enumerate(LATIN1_FOLDED) if not to)
_ASCII_INVISIBLE = bytes(byte for byte in _LATIN1_INVISIBLE if byte < 128)

_BLOCK = 8
_HEAD_BLOCKS = 3
_PADDING = b" " * (_BLOCK * _HEAD_BLOCKS)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_BLOCK)] + [2**64 - 1], np.uint64)
_ODD_CONSTANTS = np.array(
    # Odd pseudorandom numbers: 64-bit constants of splitmix64 and xxHash.
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9],
    np.uint64,
)


def split_words(text: str) -> list[str]:
    """Split a text into words of letters and digits, without case and punctuation."""
    return _WORD.findall(_UNSPACED_SCRIPTS.sub(r" \1 ", fold_text(text)))


def build_shingles(text: str) -> set[tuple[str, ...]]:
    """Return the set of word trigrams of a text, including the shorter ones at its end."""
    words = split_words(text)
    return {tuple(words[start : start + SHINGLE_WORDS]) for start in range(len(words))}


def compute_jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """Return the Jaccard similarity of two sets of shingles; 0 if both are empty."""
    common = len(one & other)
    return common / max(1, len(one) + len(other) - common)


def hash_shingles(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return a 64-bit hash of each word and its two successors, for all texts.

    Args:
        texts: texts, encoded in UTF-8.

    Returns:
        Hashes of all texts, shape (words,), and offsets, shape (texts + 1,): the hashes of text i are
        `hashes[offsets[i] : offsets[i + 1]]`. Words of more than 32 bytes are treated as equal if their
        length, first 24 and last 8 bytes are equal.
    """
    parts = [text if text.isascii() else _extract_words(text.decode()) for text in texts]
    buffer = _SEPARATOR.join([b"", *parts, _PADDING]).translate(_ASCII_WORDS, _ASCII_INVISIBLE)
    characters = np.frombuffer(buffer, np.uint8)
    in_word = (characters != 0) & (characters != ord(_SEPARATOR))
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    offsets = np.searchsorted(starts, np.flatnonzero(characters == ord(_SEPARATOR)))
    words = _hash_words(buffer, starts, ends)
    following, last = words, offsets[1:][np.diff(offsets) > 0] - 1
    hashes = words * _ODD_CONSTANTS[0]
    for odd in _ODD_CONSTANTS[1:SHINGLE_WORDS]:
        following = np.append(following[1:], np.uint64(0))
        following[last] = 0  # the successor is in another text
        hashes += following * odd
    return _mix_bits(hashes), offsets


def _extract_words(text: str) -> bytes:
    """Return the words of a text, folded as by `fold_text`, in UTF-8 and separated by spaces."""
    latin = encode_latin1(text)
    if latin is not None:
        return latin.translate(_LATIN1_WORDS, _LATIN1_INVISIBLE).decode("latin-1").encode()
    return " ".join(split_words(text)).encode()


def _hash_words(buffer: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of each word from its first three 8-byte blocks, its last 8 bytes and its length."""
    blocks = np.ndarray(
        len(buffer) - _BLOCK + 1, np.dtype("<u8"), buffer, strides=(1,)
    )  # a block at each byte offset
    sizes = ends - starts
    hashes = (blocks[starts] & _MASKS[np.minimum(sizes, _BLOCK)]) * _ODD_CONSTANTS[0] + sizes.astype(
        np.uint64
    )
    for block in range(1, _HEAD_BLOCKS):
        longer = np.flatnonzero(sizes > block * _BLOCK)
        masks = _MASKS[np.minimum(sizes[longer] - block * _BLOCK, _BLOCK)]
        hashes[longer] += (blocks[starts[longer] + block * _BLOCK] & masks) * _ODD_CONSTANTS[block]
    longer = np.flatnonzero(sizes > _HEAD_BLOCKS * _BLOCK)
    hashes[longer] += blocks[ends[longer] - _BLOCK] * _ODD_CONSTANTS[_HEAD_BLOCKS]
    return _mix_bits(hashes)


def _mix_bits(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finalizer of splitmix64 in place, so that each bit affects all bits."""
    for shift, odd in ((30, _ODD_CONSTANTS[1]), (27, _ODD_CONSTANTS[2])):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= odd
    hashes ^= hashes >> np.uint64(31)
    return hashes


SIGNATURE_LENGTH = 96
"""Number of MinHash permutations. The estimated similarity has a standard deviation of 0.05."""
SEED = 42
MIN_RECALL = 0.98
"""Minimum probability that a pair with exactly the minimum similarity becomes a candidate."""
ESTIMATE_MARGIN = 0.15
"""How far the estimate of a candidate may be below the minimum similarity: three standard deviations."""
TEXTS_PER_CHUNK = 256
"""Number of reviews whose words fit into the processor's cache."""
MAX_PAIRS = 100_000
"""Maximum candidates in memory; with their signatures they take 77 MB."""

_ODD_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def compute_signatures(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the MinHash signatures of UTF-8 texts, shape (texts, SIGNATURE_LENGTH)."""
    parts = [np.empty((0, SIGNATURE_LENGTH), np.uint32)]
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        hashes, offsets = hash_shingles(texts[start : start + TEXTS_PER_CHUNK])
        signed = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets.astype(np.uint64), SIGNATURE_LENGTH, SEED
        )
        parts.append(np.array(signed.to_rows(), np.uint32).reshape(-1, SIGNATURE_LENGTH))
    return np.concatenate(parts)


class SignatureIndex:
    """Locality-sensitive hashing index of MinHash signatures; it takes about 0.7 kB per review."""

    def __init__(self, signatures: NDArray[np.uint32], similarity: float) -> None:
        """Index signatures, shape (reviews, SIGNATURE_LENGTH), for a minimum Jaccard similarity."""
        self._signatures = signatures
        self._similarity = similarity
        self._rows_in_band = _compute_rows_per_band(similarity)
        self._retired = np.zeros(len(signatures), bool)
        self._retired_since = 0
        keys = self._compute_band_keys(signatures)
        self._positions = [np.argsort(band_keys, kind="stable").astype(np.uint32) for band_keys in keys]
        self._keys = [
            band_keys[positions] for band_keys, positions in zip(keys, self._positions, strict=True)
        ]

    def candidates(self, queries: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
        """Yield candidate pairs as row numbers of a query and an indexed review, shape (pairs, 2).

        Each pair is yielded once, in the order of the queries. Reviews that are retired between two yields
        are left out from then on.
        """
        pending = [(0, len(queries))]
        while pending:
            start, end = pending.pop()
            keys = self._compute_band_keys(queries[start:end])
            matches = [
                _find_matches(index_keys, query_keys)
                for index_keys, query_keys in zip(self._keys, keys, strict=True)
            ]
            if end - start > 1 and sum(int(counts.sum()) for _, _, counts in matches) > MAX_PAIRS:
                half = (start + end) // 2
                pending += [(half, end), (start, half)]
                continue
            pairs = [
                np.column_stack([np.repeat(hits, counts), positions[_concatenate_ranges(first, counts)]])
                for positions, (hits, first, counts) in zip(self._positions, matches, strict=True)
            ]
            all_pairs = np.concatenate(pairs).astype(np.int64)
            codes = np.unique((all_pairs[:, 0] + start) * len(self._signatures) + all_pairs[:, 1])
            yield self._select_similar(
                np.column_stack(np.divmod(codes, max(1, len(self._signatures)))), queries
            )

    def retire(self, reviews: NDArray[np.int64]) -> None:
        """Exclude indexed reviews from all later candidates."""
        self._retired_since += int((~self._retired[reviews]).sum())
        self._retired[reviews] = True
        if self._retired_since > len(self._retired) // 100:  # not at each call, because it copies the index
            self._retired_since = 0
            active = [~self._retired[positions] for positions in self._positions]
            self._keys = [keys[mask] for keys, mask in zip(self._keys, active, strict=True)]
            self._positions = [rows[mask] for rows, mask in zip(self._positions, active, strict=True)]

    def _select_similar(self, pairs: NDArray[np.int64], queries: NDArray[np.uint32]) -> NDArray[np.int64]:
        pairs = pairs[~self._retired[pairs[:, 1]]]
        estimates = (queries[pairs[:, 0]] == self._signatures[pairs[:, 1]]).mean(axis=1)
        similar: NDArray[np.int64] = pairs[estimates >= self._similarity - ESTIMATE_MARGIN]
        return similar

    def _compute_band_keys(self, signatures: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return a key per band and review, shape (bands, reviews). Equal bands have equal keys."""
        bands = SIGNATURE_LENGTH // self._rows_in_band
        slots = signatures[:, : bands * self._rows_in_band].T.reshape(bands, self._rows_in_band, -1)
        keys = np.zeros((bands, len(signatures)), np.uint64)
        for row in range(self._rows_in_band):
            keys = (keys ^ slots[:, row]) * _ODD_MULTIPLIER
            keys ^= keys >> np.uint64(32)
        return keys.astype(np.uint32)


def _compute_rows_per_band(similarity: float) -> int:
    """Return the maximum rows per band for which pairs of this similarity are found with MIN_RECALL."""
    eligible = [
        rows
        for rows in range(1, SIGNATURE_LENGTH + 1)
        if 1 - (1 - similarity**rows) ** (SIGNATURE_LENGTH // rows) >= MIN_RECALL
    ]
    return max(eligible, default=1)


def _find_matches(
    ordered: NDArray[np.uint32], keys: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find keys in a sorted array.

    Returns:
        Positions of the keys that occur in `ordered`; for each of these, the position of its first occurrence
        in `ordered`, and the number of its occurrences.
    """
    order = np.argsort(keys)  # sorted keys are searched in order, which uses the processor's cache
    first = np.searchsorted(ordered, keys[order])
    hits = np.flatnonzero(ordered.take(first, mode="clip") == keys[order]) if len(ordered) else first[:0]
    counts = np.searchsorted(ordered, keys[order[hits]], side="right") - first[hits]
    return order[hits], first[hits], counts


def _concatenate_ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate the ranges that start at `first` and have `counts` elements."""
    ends = np.cumsum(counts)
    return np.repeat(first - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
