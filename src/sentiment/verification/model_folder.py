"""Validation of a model folder of unknown origin, before anything in it is loaded."""

from pathlib import Path

from sentiment.errors import UserError
from sentiment.model.model_config import CONFIG_FILE, SEEN_TEXTS_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from sentiment.model.model_files import load_model, load_seen_texts
from sentiment.model.predictor import Predictor

MAX_BYTES = {
    CONFIG_FILE: 1_000_000,
    TOKENIZER_FILE: 100_000_000,
    SEEN_TEXTS_FILE: 1_000_000_000,
    WEIGHTS_FILE: 10_000_000_000,
}
"""Maximum sizes of the files of a model, in bytes; all are far above what a model of this project needs."""


TRIAL_FILES = {"validation.npy": 1_000_000_000, "study_id.txt": 1_000}
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
    load_seen_texts(folder)
    if is_trial:
        load_model(folder)
    else:
        Predictor.load(folder)
