"""Whole splits of text to token arrays."""

from collections.abc import Sequence

import pyarrow as pa
from tokenizers import Tokenizer

from sentiment.progress import track
from sentiment.tokens.store import TokenizedReviews

ENCODING_BATCH = 1024
"""Texts encoded together: enough for all cores; what the library notes of each token is then let go."""


def encode(tokenizer: Tokenizer, reviews: pa.Table, description: str = "tokenize") -> TokenizedReviews:
    """Turn a table with columns text and label into token arrays, on all cores.

    description: what the progress shown is called.
    """
    starts = range(0, reviews.num_rows, ENCODING_BATCH)
    ids: list[list[int]] = []
    for start in track(starts, len(starts), description):
        ids += encode_texts(tokenizer, reviews["text"].slice(start, ENCODING_BATCH).to_pylist())
    return TokenizedReviews.from_lists(ids, reviews["label"].to_numpy())


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's token ids."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
