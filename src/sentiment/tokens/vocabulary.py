"""The tokenizer: training, loading and fast encoding of texts."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer

from sentiment.errors import UserError
from sentiment.params.data import TokenizeParams
from sentiment.shards.shard_map import IN_PROCESS, ShardMap

PADDING, UNKNOWN = "<pad>", "<unk>"
PADDING_ID, UNKNOWN_ID = 0, 1

_PUNCTUATION = r"!-/:-@\[-`{-~"
ASCII_TOKENS = re.compile(rf"[^ \t\n\v\f\r{_PUNCTUATION}]+|[{_PUNCTUATION}]")
"""Splits ASCII text into the same tokens as `BertPreTokenizer`: each punctuation character is a token."""


def train_tokenizer(
    texts: Iterable[str] | Iterable[Sequence[str]], params: TokenizeParams, shards: ShardMap = IN_PROCESS
) -> Tokenizer:
    """Train a tokenizer. The same texts and parameters give the same tokenizer on any number of cores.

    Texts are split at white space, and each punctuation character is a token: `good!` is two tokens.

    A vocabulary of words is trained from the counts of each shard, whose sums do not depend on the shards.
    The merges of BPE are trained by the library, in this process.

    Args:
        texts: training corpus, as single texts or batches of texts. It is read once; only token counts stay
            in memory.
        params: `tokenize` of params.yaml.
        shards: where words are counted.
    """
    if params.kind == "word":
        counts: Counter[str] = Counter()
        batches = ([item] if isinstance(item, str) else item for item in texts)
        for shard_counts in shards.map(WordCounter, params.lowercase, batches):
            counts.update(shard_counts)
        tokenizer = Tokenizer(WordLevel(_select_words(counts, params), unk_token=UNKNOWN))
    else:
        tokenizer = Tokenizer(BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = _build_normalizer(lowercase=params.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if params.kind == "word":
        tokenizer.add_special_tokens([PADDING, UNKNOWN])
    else:
        trainer = BpeTrainer(
            vocab_size=params.vocabulary_size,
            min_frequency=params.min_frequency,
            special_tokens=[PADDING, UNKNOWN],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _select_words(counts: Counter[str], params: TokenizeParams) -> dict[str, int]:
    """Return the ids of the special tokens and of the most frequent words.

    They are those of the library's `WordLevelTrainer`: words with equal counts are in alphabetical order.
    """
    frequent = (word for word, count in counts.items() if count >= params.min_frequency)
    words = sorted(frequent, key=lambda word: (-counts[word], word))
    return {
        word: token_id for token_id, word in enumerate([PADDING, UNKNOWN, *words][: params.vocabulary_size])
    }


class WordCounter:
    """Counts the words of shards of texts, in any process.

    Args:
        lowercase: whether to convert words to lowercase.
    """

    def __init__(self, lowercase: bool) -> None:
        self._lowercase = lowercase
        self._normalizer = _build_normalizer(lowercase=lowercase)
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def __call__(self, batches: Iterable[Sequence[str]]) -> Counter[str]:
        """Return the number of times that each word is in batches of texts."""
        counts: Counter[str] = Counter()
        for texts in batches:
            # A line break is white space, so no word spans two texts.
            ascii_texts = "\n".join(text for text in texts if text.isascii())
            counts.update(ASCII_TOKENS.findall(ascii_texts.lower() if self._lowercase else ascii_texts))
            for text in texts:
                if not text.isascii():
                    counts.update(self._split(text))
        return counts

    def _split(self, text: str) -> Iterator[str]:
        normalized = self._normalizer.normalize_str(text)
        return (word for word, _ in self._pre_tokenizer.pre_tokenize_str(normalized))


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
        tokenizer = parse_tokenizer(path.read_text(encoding="utf-8"))
    except Exception as error:  # the binding raises a bare Exception for all parser errors
        raise UserError(f"{path}: truncated or corrupt tokenizer file: {error}") from None
    if (tokenizer.token_to_id(PADDING), tokenizer.token_to_id(UNKNOWN)) != (PADDING_ID, UNKNOWN_ID):
        raise UserError(
            f"{path}: expected {PADDING} as token {PADDING_ID} and {UNKNOWN} as token {UNKNOWN_ID}"
        )
    return tokenizer


def parse_tokenizer(content: str) -> Tokenizer:
    """Build a tokenizer from its JSON. The library raises a bare Exception if it is corrupt."""
    tokenizer = Tokenizer.from_str(content)
    tokenizer.encode_special_tokens = True  # `<pad>` in a review is text; JSON does not store this option
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
