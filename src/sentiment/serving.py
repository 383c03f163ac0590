"""The model that MLflow serves, which predicts a probability for each raw text.

MLflow stores this file and the package `sentiment` with the weights, and runs the file to load the model
("models from code"), so nothing is unpickled.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from sentiment.model.predictor import SERVED_FOLDER, Predictor
from sentiment.serving_input import build_internal_error, extract_texts, validate_requests

logger = logging.getLogger(__name__)


class SentimentModel(PythonModel):
    """Predicts the sentiment of the column `text`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights, configuration and tokenizer."""
        self.predictor = Predictor.load(Path(context.artifacts[SERVED_FOLDER]))
        validate_requests()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict the probability that each review is positive.

        Args:
            context: not used.
            model_input: table with the column `text`.
            params: not used.

        Returns:
            Table with the column `probability` and one row per row of the input.

        Raises:
            RequestError: the input is invalid, or the model failed.
        """
        texts = extract_texts(model_input)
        try:
            return pd.DataFrame({"probability": self.predictor.predict(texts)})
        except Exception:
            logger.exception("prediction failed")
            raise build_internal_error() from None


set_model(SentimentModel())
