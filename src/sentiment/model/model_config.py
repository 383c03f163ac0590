"""The configuration of a model on disk and the names of its files. Reading it does not import torch."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from sentiment.errors import UserError
from sentiment.params.model import ModelParams
from sentiment.params.section import Section

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
SEEN_TEXTS_FILE = "seen_texts.npy"
"""Fingerprints of the texts that the model was trained or validated on, uint64, sorted."""

FORMAT_VERSION = 1
"""Version of the files of a model; raise it with a change after which older code would misread them."""


class Origin(Section):
    """Digests of the inputs of the training run that produced a model.

    Models with equal origins come from the same training run. Models with equal weights need not: a parameter
    may have had no effect.
    """

    params: str
    """Digest of the model and training parameters."""
    data: str
    """Digest of the token data."""
    code: str
    """Digest of the code that determines the weights, and of the versions of torch and numpy."""
    study: str | None = None
    """Name of the Optuna study in which the model was trained; None if it was trained without a study."""
    trial: NonNegativeInt | None = None
    """Number of the trial in that study."""


class Calibration(Section):
    """What evaluate fits on the validation split, after training."""

    temperature: PositiveFloat = 1.0
    """Number by which logits are divided before the sigmoid."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Minimum calibrated probability for a review to be classified as positive."""


class ModelConfig(Section):
    """Content of `config.json`: the architecture, the calibration and the origin of the weights."""

    format_version: PositiveInt = FORMAT_VERSION
    vocabulary_size: PositiveInt
    ngram_entries: NonNegativeInt
    """Size of the n-gram vocabulary; 0 if the model has no n-gram branch."""
    model: ModelParams
    origin: Origin | None = None
    """Origin of the weights; None if the model was saved without it, as the models of trials are."""
    calibration: Calibration = Calibration()


class _FormatVersion(BaseModel):
    """The version alone, which is readable even if the other keys of a newer format are not."""

    format_version: PositiveInt = FORMAT_VERSION


def load_config(folder: Path) -> ModelConfig:
    """Load the configuration of a saved model.

    Raises:
        UserError: the file is missing or corrupt, is not a model configuration, or has a newer format.
    """
    path = folder / CONFIG_FILE
    try:
        content = path.read_bytes()
        if (version := _FormatVersion.model_validate_json(content).format_version) > FORMAT_VERSION:
            raise UserError(
                f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest that this "
                "version of the code reads; check out the commit that wrote the model, or a later one"
            )
        return ModelConfig.model_validate_json(content)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; create it with `dvc repro` or `dvc pull`") from None
    except ValidationError as error:
        raise UserError(f"{path}: not a valid model configuration: {error}") from None
