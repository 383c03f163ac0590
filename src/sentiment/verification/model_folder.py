"""Validation of a model folder of unknown origin, before anything in it is loaded."""

from pathlib import Path

from sentiment.errors import UserError
from sentiment.model.model_files import (
    CONFIG_FILE,
    SEEN_TEXTS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    load_config,
    load_model,
    load_seen_texts,
)
from sentiment.tokens.vocabulary import load_tokenizer

MAX_BYTES = {
    CONFIG_FILE: 1_000_000,
    TOKENIZER_FILE: 100_000_000,
    SEEN_TEXTS_FILE: 1_000_000_000,
    WEIGHTS_FILE: 10_000_000_000,
}
"""Maximum sizes of the files of a model, in bytes; all are far above what a model of this project needs."""


TRIAL_FILES = {"validation.npy": 1_000_000_000}
"""Maximum sizes of the other files in the folder of a trial; they are not read."""


def validate_model_folder(folder: Path, *, is_trial: bool = False) -> None:
    """Raise UserError unless a folder has a model that loads, and nothing else.

    Loading runs no code: the weights are safetensors, the rest is JSON and an array without objects.

    Args:
        folder: folder of the model.
        is_trial: whether the folder is that of a trial, which has no tokenizer.

    Raises:
        UserError: a file is missing, truncated, too large or unknown, or weights, configuration and tokenizer
            are incompatible.
    """
    limits = {**MAX_BYTES, **(TRIAL_FILES if is_trial else {})}
    for path in sorted(folder.iterdir()):
        if path.name not in limits or path.is_dir():
            raise UserError(
                f"{path}: not a file of a model, which has {', '.join(MAX_BYTES)}; it is not opened, "
                "since a file such as a pickle could run code"
            )
        if path.stat().st_size > limits[path.name]:
            raise UserError(f"{path}: larger than {limits[path.name]:,} bytes, too large for a model")
    _require_size(folder)
    model = load_model(folder)
    load_seen_texts(folder)
    if is_trial:
        return
    size = load_tokenizer(folder / TOKENIZER_FILE).get_vocab_size()
    if size != model.vocabulary_size:
        raise UserError(
            f"{folder}: the tokenizer has {size} tokens, but the model was trained with "
            f"{model.vocabulary_size}"
        )


def _require_size(folder: Path) -> None:
    """Raise UserError if the configuration describes a larger model than the weights file can have.

    Building it would otherwise allocate any amount of memory that the configuration asks for.
    """
    config, weights = load_config(folder), folder / WEIGHTS_FILE
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; create it with `dvc repro` or `dvc pull`")
    values = config.vocabulary_size * config.model.embedding_dim + config.ngram_entries
    values += 4 * config.model.hidden_units * (config.model.hidden_units + config.model.embedding_dim)
    if 4 * values > weights.stat().st_size:
        raise UserError(
            f"{folder}: weights and configuration are incompatible: {CONFIG_FILE} describes at least "
            f"{values:,} numbers, {WEIGHTS_FILE} has fewer"
        )
