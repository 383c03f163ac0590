"""A trained model on disk: weights as safetensors, configuration as JSON; loading executes no code."""

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_config import (
    CONFIG_FILE,
    SEEN_TEXTS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Calibration,
    ModelConfig,
    Origin,
    load_config,
)
from sentiment.model.ngram_branch import NGramBranch


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
        with path.open("rb") as file:
            fingerprints = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of fingerprints: {error}") from None
    if fingerprints.dtype != np.uint64 or fingerprints.ndim != 1:
        raise UserError(f"{path}: not an array of fingerprints: {fingerprints.dtype}, {fingerprints.shape}")
    return np.asarray(fingerprints)


def _write_config(path: Path, config: ModelConfig) -> None:
    path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_model(folder: Path) -> SentimentClassifier:
    """Load a saved model in evaluation mode, on the CPU.

    Raises:
        UserError: a file is missing or corrupt, or weights and configuration are incompatible.
    """
    config, path = load_config(folder), folder / WEIGHTS_FILE
    try:
        _require_shapes(folder, config)
        model = _build_model(config)
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; create it with `dvc repro` or `dvc pull`") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or corrupt safetensors file: {error}") from None
    return model.eval()


def _build_model(config: ModelConfig) -> SentimentClassifier:
    ngrams = NGramBranch(config.model.ngrams.order, config.ngram_entries) if config.model.ngrams else None
    return SentimentClassifier(config.model, config.vocabulary_size, ngrams)


def _require_shapes(folder: Path, config: ModelConfig) -> None:
    """Raise UserError unless the weights have the names and shapes that the configuration describes.

    Nothing is allocated: a configuration could ask for any amount of memory.
    """
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in _build_model(config).state_dict().items()}
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
        found = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{folder}: weights and configuration are incompatible: {name} is "
                f"{found.get(name, 'missing')} in {WEIGHTS_FILE}, and {expected.get(name, 'unknown')} by "
                f"{CONFIG_FILE}"
            )
