"""Small classifiers for tests."""

from typing import Any

from sentiment.params.model import ModelParams

SMALL: dict[str, Any] = {
    "max_tokens": 24,
    "truncation": "both",
    "chunk_tokens": None,
    "carry_state": False,
    "embedding_dim": 6,
    "hidden_units": 5,
    "layers": 1,
    "bidirectional": True,
    "pooling": "max",
    "ngrams": None,
    "dropout": {"words": 0.0, "embeddings": 0.0, "layers": 0.0, "head": 0.0},
    "head": {"units": 0, "activation": "relu"},
}


def model_params(**changes: Any) -> ModelParams:
    """Return the parameters of a small classifier, with some of them changed."""
    return ModelParams.model_validate({**SMALL, **changes})
