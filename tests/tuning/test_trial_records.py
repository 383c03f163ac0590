"""Retained models of trials belong to the study that trained them."""

from pathlib import Path

import numpy as np
import optuna
import pytest

from sentiment.model.classifier import SentimentClassifier
from sentiment.params import Params, load_params
from sentiment.settings import Settings
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.loop import TrainingResult
from sentiment.tuning import trial_records
from sentiment.tuning.study import open_search
from sentiment.tuning.trial_records import load_or_retrain, read_validation_logits, retain_model
from tests.model.small_model import SMALL
from tests.project import ROOT

SPLIT = TokenizedReviews.from_lists([[2, 3], [4, 5]], [0, 1])
REVIEWS = TrainingData(10, SPLIT, SPLIT)


def _params() -> Params:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["model"] = SMALL
    content["train"]["device"] = "cpu"
    content["tune"]["space"] = {"train.optimizer.learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-1}}
    return Params.model_validate(content)


def _result(value: float) -> TrainingResult:
    model = SentimentClassifier(_params().model, REVIEWS.vocabulary_size, None).eval()
    epochs: list[object] = []
    return TrainingResult(model, epochs, None, np.full(2, value, dtype=np.float32))  # type: ignore[arg-type]


def test_model_of_a_study_of_the_same_name_in_another_storage_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    trained: list[str] = []

    def train(*arguments: object) -> TrainingResult:
        trained.append(str(arguments[-1]))
        return _result(2.0)

    monkeypatch.setattr(trial_records, "fit_with_self_training", train)
    trial = optuna.trial.create_trial(value=0.9)
    trial.number = 0
    own = open_search(_params(), REVIEWS)
    retain_model(own, 0, _result(1.0))
    assert load_or_retrain(own, trial).logits.tolist() == [1.0, 1.0]
    assert not trained

    monkeypatch.setenv("TUNE_STORAGE", f"sqlite:///{tmp_path}/shared.db")
    shared = open_search(_params(), REVIEWS)
    assert shared.folder == own.folder
    assert read_validation_logits(shared, 0) is None
    for _ in range(2):
        assert load_or_retrain(shared, trial).logits.tolist() == [2.0, 2.0]
    assert len(trained) == 1
    assert read_validation_logits(own, 0) is None
