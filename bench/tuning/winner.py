"""The model that `dvc repro` selects, beside one with the parameters of an earlier, longer training."""

from typing import Any

from bench.bars import Bar
from bench.processes import in_fresh_process
from sentiment import paths
from sentiment.errors import UserError
from sentiment.intervals import Gain, compute_delong_gain
from sentiment.model.classifier import predict_logits
from sentiment.model.model_files import load_model
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.training.loop import fit

BAR = -0.002
MODEL_BEFORE: dict[str, Any] = {
    "max_tokens": 400,
    "truncation": "both",
    "chunk_tokens": 64,
    "carry_state": False,
    "embedding_dim": 128,
    "hidden_units": 128,
    "layers": 1,
    "bidirectional": True,
    "pooling": "max",
    "ngrams": {"order": 3, "min_reviews": 3, "smoothing": 5.0e-4, "weight": 0.7},
    "dropout": {"words": 0.25, "embeddings": 0.0, "layers": 0.0, "head": 0.2},
    "head": {"units": 0, "activation": "relu"},
}
TRAIN_BEFORE: dict[str, Any] = {
    "seed": 42,
    "epochs": 3,
    "batch_size": 64,
    "unlabelled": "ignore",
    "device": "auto",
    "precision": "auto",
    "threads": 2,
    "ranks": 1,
    "optimizer": {"kind": "adamw", "learning_rate": 5.5e-3, "weight_decay": 0.0, "l1": 0.0},
    "schedule": {"kind": "cosine", "warmup_steps": 50, "end_factor": 0.0},
    "clip": {"kind": "norm", "threshold": 0.4},
    "ema_decay": 0.99,
}
"""The sections `model` and `train` of params.yaml at commit 362f196, and two threads."""


def winner_bar() -> Bar:
    """Train the model with the parameters before; compare validation AUCs on the same reviews."""
    gain = in_fresh_process(compute_gain)
    return Bar(
        "validation AUC of the selected model, less that with the parameters before",
        str(gain),
        f"≥ {BAR}",
        gain.auc >= BAR,
    )


def compute_gain() -> Gain:
    """Return the gain of the selected model over one that is trained with the parameters before.

    Raises:
        UserError: the selected model is missing, or was trained with another vocabulary.
    """
    reviews = TrainingData.open()
    selected = load_model(paths.SELECTED)
    if selected.vocabulary_size != reviews.vocabulary_size:
        raise UserError(
            f"{paths.SELECTED} has a vocabulary of {selected.vocabulary_size} tokens, but {paths.TOKENS} has "
            f"{reviews.vocabulary_size}; run `dvc repro`"
        )
    before = fit(
        ModelParams.model_validate(MODEL_BEFORE),
        TrainParams.model_validate(TRAIN_BEFORE),
        reviews,
        on_epoch=lambda _: None,
    )
    logits = predict_logits(selected, reviews.validation, "selected model on validation")
    return Gain(*compute_delong_gain(reviews.validation.labels, logits, before.validation_logits))
