"""`params.yaml`: its schema, and its validation before any data is read."""

from sentiment.params.loading import EvaluateParams, Params, load_params

__all__ = ["EvaluateParams", "Params", "load_params"]
