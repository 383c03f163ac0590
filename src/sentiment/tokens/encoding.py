"""Whole splits of text to token arrays, a batch of reviews at a time."""

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer

from sentiment.data.parquet import BATCH_ROWS, ReviewStream, read_origins
from sentiment.errors import UserError
from sentiment.logs import progress
from sentiment.tokens.token_store import NO_LABEL, TokenizedReviews, writing_tokens
from sentiment.tokens.vocabulary import UNKNOWN_ID


@dataclass(frozen=True)
class EncodedBatch:
    """Reviews as token ids.

    ids: shape (tokens,), all reviews after one another. lengths: shape (reviews,). labels: shape (reviews,),
    NO_LABEL where there is none.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int8]


_PUNCTUATION = r"!-/:-@\[-`{-~"
ASCII_WORDS = re.compile(rf"[^ \t\n\v\f\r{_PUNCTUATION}]+|[{_PUNCTUATION}]")
"""Words of ASCII text as `BertPreTokenizer` splits it: punctuation stands alone, white space is dropped."""

NOTHING = EncodedBatch(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int8))


NAMED_REVIEWS = 10
"""Reviews that an error names."""


class UnknownWords:
    """Counts a split's unknown words as its batches pass, and remembers the reviews with most of them."""

    def __init__(self) -> None:
        self.tokens = self.unknown = 0
        self._reviews = 0
        self._worst: list[tuple[float, int]] = []

    def add(self, ids: NDArray[np.int32], lengths: NDArray[np.integer]) -> None:
        """Take the next reviews. ids: shape (tokens,), all after one another. lengths: shape (reviews,)."""
        before = np.concatenate([[0], np.cumsum(ids == UNKNOWN_ID)])
        ends = np.cumsum(lengths)
        of_review = before[ends] - before[ends - lengths]
        rates = of_review / np.maximum(lengths, 1)
        here = np.argsort(-rates, kind="stable")[:NAMED_REVIEWS]
        found = [(float(rates[position]), -(self._reviews + int(position))) for position in here]
        self._worst = heapq.nlargest(NAMED_REVIEWS, [*self._worst, *found])  # earlier rows first among equals
        self.tokens += len(ids)
        self.unknown += int(of_review.sum())
        self._reviews += len(lengths)

    def refuse_above(self, limit: float, path: Path) -> None:
        """Raise UserError that names the worst reviews of the split at `path`, where too many are unknown."""
        share = self.unknown / max(self.tokens, 1)
        if share <= limit:
            return
        worst = [(rate, -row) for rate, row in self._worst]
        names = read_origins(path, [row for _, row in worst])
        lines = [f"{name}: {rate:.1%} unknown" for (rate, _), name in zip(worst, names, strict=True)]
        what = (
            f"{path}: {share:.1%} of the words are unknown, more than tokenize.oov_rate ({limit:.1%}); "
            "the vocabulary is learned on the training split. For example:"
        )
        raise UserError("\n  ".join([what, *lines]))


def encode(tokenizer: Tokenizer, reviews: pa.Table, description: str = "tokenize") -> TokenizedReviews:
    """Turn a table with columns text and label into token arrays in memory, on all cores.

    description: what the progress shown is called.
    """
    batches = reviews.to_batches(BATCH_ROWS)
    encoded = [NOTHING, *_encoded(tokenizer, _tracked(batches, reviews.num_rows, description))]
    ids, lengths, labels = (
        np.concatenate([getattr(batch, name) for batch in encoded]) for name in ("ids", "lengths", "labels")
    )
    return TokenizedReviews.from_arrays(ids, lengths, labels)


def encode_to(
    folder: Path,
    tokenizer: Tokenizer,
    reviews: ReviewStream,
    description: str,
    oov_rate: float = 1.0,
) -> dict[str, Any]:
    """Write one split's token arrays while a batch of it is in memory; return what is in them.

    description: what the progress shown is called. oov_rate: largest share of unknown words.
    Raises UserError where the reviews cannot all be read or too many words are unknown; then nothing is
    written.
    """
    unknown = UnknownWords()
    with writing_tokens(folder) as writer:
        for batch in _encoded(tokenizer, _tracked(reviews, reviews.num_rows, description)):
            writer.append(batch.ids, batch.lengths, batch.labels)
            unknown.add(batch.ids, batch.lengths)
        unknown.refuse_above(oov_rate, reviews.path)
    return writer.describe()


class TextEncoder:
    """Turns texts into token ids, as a tokenizer does, but several times as fast.

    The library aligns every character with the original through each step of its pipeline. On ASCII text, the
    steps of a word tokenizer amount to lower case and one regular expression.

    Args:
        tokenizer: what `learn_tokenizer` returns or `load_tokenizer` reads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        splits_into_words = isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        has_words = splits_into_words and isinstance(tokenizer.model, WordLevel)
        self._vocabulary = tokenizer.get_vocab() if has_words else None
        self._lowercase = tokenizer.normalizer.normalize_str("A") == "a"

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids."""
        if self._vocabulary is None:
            return self._by_library(texts)
        get = self._vocabulary.get

        def looked_up(text: str) -> list[int]:
            words = ASCII_WORDS.findall(text.lower() if self._lowercase else text)
            return [get(word, UNKNOWN_ID) for word in words]

        by_library = iter(self._by_library([text for text in texts if not text.isascii()]))
        return [looked_up(text) if text.isascii() else next(by_library) for text in texts]

    def _by_library(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def texts_of(reviews: ReviewStream, description: str) -> Iterator[list[str]]:
    """Yield the texts, a list per batch, and show the progress under that description."""
    for batch in _tracked(reviews, reviews.num_rows, description):
        yield batch["text"].to_pylist()


def _encoded(tokenizer: Tokenizer, batches: Iterable[pa.RecordBatch]) -> Iterator[EncodedBatch]:
    encode_texts = TextEncoder(tokenizer)
    for batch in batches:
        lists = encode_texts(batch["text"].to_pylist())
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        yield EncodedBatch(ids, lengths, batch["label"].fill_null(NO_LABEL).to_numpy())


def _tracked(batches: Iterable[pa.RecordBatch], total: int, description: str) -> Iterator[pa.RecordBatch]:
    return progress(batches, total, description, size=lambda batch: int(batch.num_rows))
