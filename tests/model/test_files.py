"""A model on disk: equal bytes for equal weights, and a clear word for what does not fit."""

from pathlib import Path

import pytest
import torch

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import TOKENIZER, copy_model, load_model, save_model
from sentiment.model.predictor import Predictor
from tests.model.shapes import model_params
from tests.tokens.made import tokenizer_of

TEXTS = ["a fine film", "a bad film", "a film"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / TOKENIZER
    tokenizer_of(TEXTS, 100).save(str(path))
    return path


def _model(vocabulary_size: int) -> SentimentClassifier:
    torch.manual_seed(0)
    return SentimentClassifier(model_params(), vocabulary_size).eval()


def test_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    model = _model(50)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert loaded.params == model.params
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_equal_weights_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(tmp_path / name, _model(50))
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_predictor_normalizes_as_training_did(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    plain, with_markup = predictor.predict(["a fine film", "A  fine<br />FILM"])
    assert plain == with_markup
    assert 0 < plain < 1


def test_predictor_takes_any_text(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(6))
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    predictor = Predictor.load(tmp_path / "served")
    probabilities = predictor.predict(["", "unheard-of", "film", "film " * 500])
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(predictor.predict([])) == 0


def test_other_vocabulary_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    save_model(tmp_path / "model", _model(7))
    copy_model(tmp_path / "model", tmp_path / "served", tokenizer)
    with pytest.raises(UserError, match="the tokenizer has 6 entries, the model was trained with 7"):
        Predictor.load(tmp_path / "served")
