"""A trained model on disk: weights as safetensors, everything else as JSON; loading runs no code."""

import shutil
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramPart
from sentiment.params.model import ModelParams
from sentiment.params.section import Section

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


class Origin(Section):
    """What trained a model, as digests: two trainings that share them all have one story.

    Equal weights do not: a parameter may have had no effect.
    """

    params: str
    """Of the parameters of model and training."""
    data: str
    """Of the token data."""
    code: str
    """Of the code that decides the weights, and the versions of torch and numpy."""
    study: str | None = None
    """Name of the search that the model is from, None where it was trained by itself."""
    trial: NonNegativeInt | None = None
    """Number of the trial in that search."""


class ModelConfig(Section):
    """What it takes to rebuild the model that the weights belong to, and what trained it."""

    vocabulary_size: PositiveInt
    ngram_entries: NonNegativeInt
    model: ModelParams
    origin: Origin | None = None
    """None of a model that was saved without, as trials are."""


def save_model(folder: Path, model: SentimentClassifier, origin: Origin | None = None) -> None:
    """Write a model's files, each whole or not at all; equal weights of equal origin make equal bytes."""
    config = ModelConfig(
        origin=origin,
        vocabulary_size=model.vocabulary_size,
        ngram_entries=len(model.ngrams.keys) if model.ngrams else 0,
        model=model.params,
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def copy_model(source: Path, target: Path, tokenizer: Path) -> None:
    """Make a folder that `Predictor.load` reads: a model's files and its tokenizer, all or none."""
    with atomic_write(target) as temporary:
        temporary.mkdir()
        for file in (source / WEIGHTS, source / CONFIG):
            shutil.copyfile(file, temporary / file.name)
        shutil.copyfile(tokenizer, temporary / TOKENIZER)


def load_config(folder: Path) -> ModelConfig:
    """Read what a model looks like.

    Raises UserError where the file is missing, torn, or no configuration of a model.
    """
    path = folder / CONFIG
    try:
        return ModelConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it") from None
    except ValidationError as error:
        raise UserError(f"{path}: not the configuration of a model: {error}") from None


def load_model(folder: Path) -> SentimentClassifier:
    """Read a model, ready to score (evaluation mode).

    Raises UserError where a file is missing, torn, or does not fit the other.
    """
    config = load_config(folder)
    ngrams = NGramPart(config.model.ngrams.order, config.ngram_entries) if config.model.ngrams else None
    model = SentimentClassifier(config.model, config.vocabulary_size, ngrams)
    path = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from None
    except RuntimeError as error:  # names or shapes differ from the configuration's
        raise UserError(f"{folder}: weights and configuration do not fit: {error}") from None
    return model.eval()
