"""`params.yaml`: its schema, and its validation before any data is read."""

from sentiment.params.evaluate import EvaluateParams
from sentiment.params.loading import Params, load_params

__all__ = ["EvaluateParams", "Params", "load_params"]
