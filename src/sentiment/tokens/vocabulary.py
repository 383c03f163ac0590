"""Reviews that the vocabulary does not cover: another language, another encoding, another task."""

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


def learn_tokenizer(texts: Iterable[str] | Iterable[Sequence[str]], params: TokenizeParams) -> Tokenizer:
    """Learn a vocabulary; equal texts and params give an equal one, on any number of cores.

    texts: read once, one by one or a batch at a time; what is kept of them is how often each word occurs.
    Words are split at white space, and each punctuation character stands alone: `good!` is two tokens.
    """
    vocabulary: dict[str, Any] = {
        "vocab_size": params.vocabulary_size,
        "min_frequency": params.min_frequency,
        "special_tokens": [PADDING, UNKNOWN],
        "show_progress": False,
    }
    trainer: WordLevelTrainer | BpeTrainer
    if params.kind == "word":
        tokenizer, trainer = Tokenizer(WordLevel(unk_token=UNKNOWN)), WordLevelTrainer(**vocabulary)
    else:
        tokenizer, trainer = Tokenizer(BPE(unk_token=UNKNOWN)), BpeTrainer(**vocabulary)
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if params.lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer's JSON.

    Raises UserError where it is missing, torn, or has other ids for padding and unknown words.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the binding raises a bare Exception for whatever its parser meets
        raise UserError(f"{path}: not a whole tokenizer file: {error}") from None
    if (tokenizer.token_to_id(PADDING), tokenizer.token_to_id(UNKNOWN)) != (PADDING_ID, UNKNOWN_ID):
        raise UserError(
            f"{path}: expected {PADDING} as token {PADDING_ID} and {UNKNOWN} as token {UNKNOWN_ID}"
        )
    tokenizer.encode_special_tokens = True  # `<pad>` in a review is text; the file does not keep this
    return tokenizer
