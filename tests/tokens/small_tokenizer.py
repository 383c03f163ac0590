"""Small tokenizers for tests."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from sentiment.params.data import TokenizeParams
from sentiment.tokens.vocabulary import train_tokenizer


def train_small_tokenizer(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """Return a word-level tokenizer of lower-case texts."""
    params = TokenizeParams(
        kind="word", vocabulary_size=vocabulary_size, min_frequency=1, lowercase=True, oov_rate=1.0
    )
    return train_tokenizer(texts, params)
