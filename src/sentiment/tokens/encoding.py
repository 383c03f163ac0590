"""Whole splits of text to token arrays, a batch of reviews at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.progress import track
from sentiment.reviews.storage import BATCH_ROWS, ReviewStream
from sentiment.tokens.store import NO_LABEL, TokenizedReviews, writing_tokens
from sentiment.tokens.unknown import UnknownWords


@dataclass(frozen=True)
class EncodedBatch:
    """Reviews as token ids.

    ids: shape (tokens,), all reviews after one another. lengths: shape (reviews,). labels: shape (reviews,),
    NO_LABEL where there is none.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int8]


NOTHING = EncodedBatch(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int8))


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
    unknown_rate: float = 1.0,
) -> dict[str, Any]:
    """Write one split's token arrays while a batch of it is in memory; return what is in them.

    description: what the progress shown is called. unknown_rate: largest share of unknown words.
    Raises UserError where the reviews cannot all be read or too many words are unknown; then nothing is
    written.
    """
    unknown = UnknownWords()
    with writing_tokens(folder) as writer:
        for batch in _encoded(tokenizer, _tracked(reviews, reviews.num_rows, description)):
            writer.append(batch.ids, batch.lengths, batch.labels)
            unknown.add(batch.ids, batch.lengths)
        unknown.refuse_above(unknown_rate, reviews.path)
    return writer.describe()


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's token ids."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def texts_of(reviews: ReviewStream, description: str) -> Iterator[list[str]]:
    """Yield the texts, a list per batch, and show the progress under that description."""
    for batch in _tracked(reviews, reviews.num_rows, description):
        yield batch["text"].to_pylist()


def _encoded(tokenizer: Tokenizer, batches: Iterable[pa.RecordBatch]) -> Iterator[EncodedBatch]:
    for batch in batches:
        # The library encodes on all cores and takes 95% of the time: a second thread that reads and writes
        # meanwhile gained nothing.
        lists = encode_texts(tokenizer, batch["text"].to_pylist())
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        yield EncodedBatch(ids, lengths, batch["label"].fill_null(NO_LABEL).to_numpy())


def _tracked(batches: Iterable[pa.RecordBatch], total: int, description: str) -> Iterator[pa.RecordBatch]:
    return track(batches, total, description, size=lambda batch: int(batch.num_rows))
