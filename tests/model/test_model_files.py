"""Model files: equal bytes for equal weights, and errors for incompatible files."""

from pathlib import Path

import pytest
import torch

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import TOKENIZER_FILE, copy_model, load_model, save_model
from sentiment.model.predictor import Predictor
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer

TEXTS = ["a fine film", "a bad film", "a film"]


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
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    plain, with_markup = predictor.predict(["a fine film", "A  fine<br />FILM"])
    assert plain == with_markup
    assert 0 < plain < 1


def test_predictor_accepts_any_text(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    probabilities = predictor.predict(["", "unheard-of", "film", "film " * 500])
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(predictor.predict([])) == 0


def test_tokenizer_of_another_vocabulary_is_rejected(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(7))
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    with pytest.raises(UserError, match="the tokenizer has 6 tokens, but the model was trained with 7"):
        Predictor.load(tmp_path / "served")
