"""Model files: equal bytes for equal weights, and errors for incompatible files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_config import (
    CONFIG_FILE,
    FORMAT_VERSION,
    SEEN_TEXTS_FILE,
    TOKENIZER_FILE,
    Calibration,
    load_config,
)
from sentiment.model.model_files import export_model, load_model, load_seen_texts, save_model
from sentiment.model.predictor import Predictor
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer

TEXTS = ["a fine film", "a bad film", "a film"]

STORED_MODELS = Path(__file__).parent / "stored_models"
"""Models that must predict the same at every later commit."""


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / TOKENIZER_FILE
    train_small_tokenizer(TEXTS, 100).save(str(path))
    return path


def _model(vocabulary_size: int) -> SentimentClassifier:
    torch.manual_seed(0)
    return SentimentClassifier(model_params(), vocabulary_size).eval()


def test_loaded_model_equals_the_saved_one(tmp_path: Path) -> None:
    model = _model(50)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert loaded.params == model.params
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(tmp_path / name, _model(50))
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_predictor_normalizes_text_as_training_does(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    export_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    plain, with_markup = predictor.predict(["a fine film", "A  fine<br />FILM"])
    assert plain == with_markup
    assert 0 < plain < 1


def test_predictor_accepts_any_text(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    export_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    probabilities = predictor.predict(["", "unheard-of", "film", "film " * 500])
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(predictor.predict([])) == 0


def test_tokenizer_of_another_vocabulary_is_rejected(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(7))
    export_model(tmp_path / "model", tmp_path / "served", tokenizer)
    with pytest.raises(UserError, match="the tokenizer has 6 tokens, but the model was trained with 7"):
        Predictor.load(tmp_path / "served")


def test_predictor_applies_the_temperature(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    export_model(tmp_path / "model", tmp_path / "plain", tokenizer)
    calibration = Calibration(temperature=2.5, threshold=0.4)
    export_model(tmp_path / "model", tmp_path / "calibrated", tokenizer, calibration=calibration)
    plain, calibrated = (Predictor.load(tmp_path / name).predict(TEXTS) for name in ("plain", "calibrated"))
    np.testing.assert_allclose(
        np.log(calibrated / (1 - calibrated)), np.log(plain / (1 - plain)) / 2.5, rtol=1e-9
    )
    assert load_config(tmp_path / "calibrated").calibration == calibration


def test_seen_texts_are_those_that_were_exported(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    fingerprints = np.array([1, 2**63 + 5], np.uint64)
    export_model(tmp_path / "model", tmp_path / "served", tokenizer, seen_texts=fingerprints)
    np.testing.assert_array_equal(load_seen_texts(tmp_path / "served"), fingerprints)
    assert load_seen_texts(tmp_path / "model") is None


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_corrupt_seen_texts_are_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SEEN_TEXTS_FILE).write_bytes(content)
    with pytest.raises(UserError, match="not an array of fingerprints"):
        load_seen_texts(tmp_path)


def test_pickled_seen_texts_are_rejected(tmp_path: Path) -> None:
    np.save(tmp_path / SEEN_TEXTS_FILE, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not an array of fingerprints"):
        load_seen_texts(tmp_path)


def test_newer_format_is_rejected_before_its_keys_are_read(tmp_path: Path) -> None:
    content = {"format_version": FORMAT_VERSION + 1, "key_of_the_future": 1}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=f"format_version {FORMAT_VERSION + 1} is newer than"):
        load_config(tmp_path)


@pytest.mark.parametrize("version", sorted(path.name for path in STORED_MODELS.iterdir()))
def test_stored_model_predicts_as_when_it_was_made(version: str) -> None:
    """Each format version has a small model, exported by the code that wrote it, with its predictions."""
    folder = STORED_MODELS / version
    expected = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    probabilities = Predictor.load(folder).predict(list(expected))
    np.testing.assert_allclose(probabilities, list(expected.values()), atol=1e-6)
    assert load_seen_texts(folder) is not None


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("vocabulary_size",), 30_000_000_000_000),
        (("ngram_entries",), 40_000_000_000_000),
        (("model", "head", "units"), 10_000_000_000_000),
        (("model", "hidden_units"), 6),
    ],
)
def test_configuration_of_another_model_is_rejected_before_memory_is_allocated(
    tmp_path: Path, keys: tuple[str, ...], value: int
) -> None:
    folder = shutil.copytree(STORED_MODELS / "1", tmp_path / "model")
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    node = config
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="weights and configuration are incompatible"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"PK\x03\x04garbage", None], ids=["truncated archive", "archive"])
def test_archive_in_place_of_seen_texts_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / SEEN_TEXTS_FILE
    if content is None:
        with path.open("wb") as file:
            np.savez(file, np.zeros(3, np.uint64))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="not an array of fingerprints"):
        load_seen_texts(tmp_path)
