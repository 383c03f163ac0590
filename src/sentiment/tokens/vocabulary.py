"""The tokenizer: training, loading and fast encoding of texts."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer, WordLevelTrainer

from sentiment.errors import UserError
from sentiment.params.data import TokenizeParams

PADDING, UNKNOWN = "<pad>", "<unk>"
PADDING_ID, UNKNOWN_ID = 0, 1

_PUNCTUATION = r"!-/:-@\[-`{-~"
ASCII_TOKENS = re.compile(rf"[^ \t\n\v\f\r{_PUNCTUATION}]+|[{_PUNCTUATION}]")
"""Splits ASCII text into the same tokens as `BertPreTokenizer`: each punctuation character is a token."""


def train_tokenizer(texts: Iterable[str] | Iterable[Sequence[str]], params: TokenizeParams) -> Tokenizer:
    """Train a tokenizer. The same texts and parameters give the same tokenizer on any number of cores.

    Texts are split at white space, and each punctuation character is a token: `good!` is two tokens.

    Args:
        texts: training corpus, as single texts or batches of texts. It is read once; only token counts stay
            in memory.
        params: `tokenize` of params.yaml.
    """
    trainer_options: dict[str, Any] = {
        "vocab_size": params.vocabulary_size,
        "min_frequency": params.min_frequency,
        "special_tokens": [PADDING, UNKNOWN],
        "show_progress": False,
    }
    trainer: WordLevelTrainer | BpeTrainer
    if params.kind == "word":
        tokenizer, trainer = Tokenizer(WordLevel(unk_token=UNKNOWN)), WordLevelTrainer(**trainer_options)
    else:
        tokenizer, trainer = Tokenizer(BPE(unk_token=UNKNOWN)), BpeTrainer(**trainer_options)
    tokenizer.normalizer = _build_normalizer(lowercase=params.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _build_normalizer(*, lowercase: bool) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer from its JSON file.

    Raises:
        UserError: the file is missing or corrupt, or its padding and unknown tokens have unexpected ids.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; create it with `dvc repro` or `dvc pull`")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the binding raises a bare Exception for all parser errors
        raise UserError(f"{path}: truncated or corrupt tokenizer file: {error}") from None
    if (tokenizer.token_to_id(PADDING), tokenizer.token_to_id(UNKNOWN)) != (PADDING_ID, UNKNOWN_ID):
        raise UserError(
            f"{path}: expected {PADDING} as token {PADDING_ID} and {UNKNOWN} as token {UNKNOWN_ID}"
        )
    tokenizer.encode_special_tokens = True  # `<pad>` in a review is text; the file does not store this option
    return tokenizer


class TextEncoder:
    """Encodes texts as token ids: the same result as with the tokenizer itself, but several times faster.

    The `tokenizers` library tracks the offset of every character, which is not needed here. On ASCII text, a
    word-level tokenizer of `train_tokenizer` is equivalent to lowercasing and one regular expression. Other
    text is encoded by the library, and so is all text if the tokenizer has another configuration.

    Args:
        tokenizer: any tokenizer that has the unknown token `UNKNOWN_ID`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lowercase = _is_equal(tokenizer.normalizer, _build_normalizer(lowercase=True))
        self._vocabulary = tokenizer.get_vocab() if _supports_ascii_tokens(tokenizer) else None

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        if self._vocabulary is None:
            return self._encode_with_library(texts)
        get_id = self._vocabulary.get

        def encode_ascii(text: str) -> list[int]:
            tokens = ASCII_TOKENS.findall(text.lower() if self._lowercase else text)
            return [get_id(token, UNKNOWN_ID) for token in tokens]

        non_ascii = iter(self._encode_with_library([text for text in texts if not text.isascii()]))
        return [encode_ascii(text) if text.isascii() else next(non_ascii) for text in texts]

    def _encode_with_library(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _supports_ascii_tokens(tokenizer: Tokenizer) -> bool:
    """Return whether `ASCII_TOKENS` splits ASCII text into the same tokens as the tokenizer.

    A tokenizer file may come from elsewhere, with other settings than those of `train_tokenizer`.
    """
    added_tokens = {
        token_id: (token.content, token.special)
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }
    return (
        isinstance(tokenizer.model, WordLevel)
        and tokenizer.model.unk_token == UNKNOWN
        and any(_is_equal(tokenizer.normalizer, _build_normalizer(lowercase=flag)) for flag in (True, False))
        and _is_equal(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer())
        and added_tokens == {PADDING_ID: (PADDING, True), UNKNOWN_ID: (UNKNOWN, True)}
        and tokenizer.encode_special_tokens
        and tokenizer.truncation is None
        and tokenizer.padding is None
    )


def _is_equal(part: Any, expected: Any) -> bool:
    """Return whether two parts of tokenizers have the same settings. The library has no `==` for them."""
    return part is not None and bool(part.__getstate__() == expected.__getstate__())
