"""A trained model on disk: weights as safetensors, configuration as JSON; loading executes no code."""

import shutil
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, ValidationError
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


class ModelConfig(Section):
    """Content of `config.json`: the architecture and the origin of the weights."""

    vocabulary_size: PositiveInt
    ngram_entries: NonNegativeInt
    """Size of the n-gram vocabulary; 0 if the model has no n-gram branch."""
    model: ModelParams
    origin: Origin | None = None
    """Origin of the weights; None if the model was saved without it, as the models of trials are."""


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
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def copy_model(source: Path, target: Path, tokenizer: Path) -> None:
    """Copy a model and its tokenizer into one folder, which `Predictor.load` reads.

    Args:
        source: folder with the weights and the configuration.
        target: output folder, which is written atomically.
        tokenizer: path of the tokenizer's JSON file.
    """
    with atomic_write(target) as temporary:
        temporary.mkdir()
        for file in (source / WEIGHTS_FILE, source / CONFIG_FILE):
            shutil.copyfile(file, temporary / file.name)
        shutil.copyfile(tokenizer, temporary / TOKENIZER_FILE)


def load_config(folder: Path) -> ModelConfig:
    """Load the configuration of a saved model.

    Raises:
        UserError: the file is missing or corrupt, or is not a model configuration.
    """
    path = folder / CONFIG_FILE
    try:
        return ModelConfig.model_validate_json(path.read_bytes())
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
