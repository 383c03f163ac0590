"""Whole splits of text to token arrays."""

from collections.abc import Sequence

import pyarrow as pa
from tokenizers import Tokenizer

from sentiment.tokens.store import TokenizedReviews


def encode(tokenizer: Tokenizer, reviews: pa.Table) -> TokenizedReviews:
    """Turn a table with columns text and label into token arrays, on all cores."""
    labels = reviews["label"].to_numpy()
    return TokenizedReviews.from_lists(encode_texts(tokenizer, reviews["text"].to_pylist()), labels)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's token ids."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
