"""A trained model on disk: weights as safetensors, configuration as JSON; loading executes no code."""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramBranch
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


def save_model(folder: Path, model: SentimentClassifier, origin: Origin | None = None) -> None:
    """Write the weights and the configuration of a model, each file atomically.

    Identical models and origins produce identical files.

    Args:
        folder: output folder.
        model: model to save.
        origin: origin of the weights, saved in the configuration.
    """
    config = ModelConfig(
        origin=origin,
        vocabulary_size=model.vocabulary_size,
        ngram_entries=len(model.ngrams.keys) if model.ngrams else 0,
        model=model.params,
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary)
    with atomic_write(folder / CONFIG_FILE) as temporary:
        _write_config(temporary, config)


def export_model(
    source: Path,
    target: Path,
    tokenizer: Path,
    *,
    calibration: Calibration = Calibration(),  # noqa: B008  (immutable)
    seen_texts: NDArray[np.uint64] | None = None,
) -> None:
    """Write a model with all that prediction needs into one folder, which `Predictor.load` reads.

    Args:
        source: folder with the weights and the configuration.
        target: output folder, which is written atomically.
        tokenizer: path of the tokenizer's JSON file.
        calibration: temperature and threshold, saved in the configuration.
        seen_texts: fingerprints of the texts that the model was trained or validated on, shape (texts,).
    """
    config = load_config(source).model_copy(update={"calibration": calibration})
    with atomic_write(target) as temporary:
        temporary.mkdir()
        shutil.copyfile(source / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
        shutil.copyfile(tokenizer, temporary / TOKENIZER_FILE)
        _write_config(temporary / CONFIG_FILE, config)
        if seen_texts is not None:
            np.save(temporary / SEEN_TEXTS_FILE, seen_texts, allow_pickle=False)


def load_seen_texts(folder: Path) -> NDArray[np.uint64] | None:
    """Load the fingerprints of the texts that a model was trained or validated on, shape (texts,).

    Returns:
        The sorted fingerprints; None if the folder has none.

    Raises:
        UserError: the file is not an array of fingerprints.
    """
    path = folder / SEEN_TEXTS_FILE
    try:
        fingerprints = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of fingerprints: {error}") from None
    if fingerprints.dtype != np.uint64 or fingerprints.ndim != 1:
        raise UserError(f"{path}: not an array of fingerprints: {fingerprints.dtype}, {fingerprints.shape}")
    return np.asarray(fingerprints)


def _write_config(path: Path, config: ModelConfig) -> None:
    path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


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


def load_model(folder: Path) -> SentimentClassifier:
    """Load a saved model in evaluation mode, on the CPU.

    Raises:
        UserError: a file is missing or corrupt, or weights and configuration are incompatible.
    """
    config = load_config(folder)
    ngrams = NGramBranch(config.model.ngrams.order, config.ngram_entries) if config.model.ngrams else None
    model = SentimentClassifier(config.model, config.vocabulary_size, ngrams)
    path = folder / WEIGHTS_FILE
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; create it with `dvc repro` or `dvc pull`") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or corrupt safetensors file: {error}") from None
    except RuntimeError as error:  # names or shapes differ from those of the configuration
        raise UserError(f"{folder}: weights and configuration are incompatible: {error}") from None
    return model.eval()
