"""The model that MLflow serves, defined by this file's code: raw text in, probability out.

MLflow stores this file and the package beside the weights, and runs it to load the model; nothing is
unpickled.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from sentiment.model.predictor import SERVED_FOLDER, Predictor
from sentiment.tracking.serving_input import extract_texts, internal_error, validate_requests

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
            model_input: a table with the column `text`.
            params: not used.

        Returns:
            A table with the column `probability`, a row for each row of the input.

        Raises:
            RequestError: the input is invalid, or the model failed.
        """
        texts = extract_texts(model_input)
        try:
            return pd.DataFrame({"probability": self.predictor.predict(texts)})
        except Exception:
            logger.exception("prediction failed")
            raise internal_error() from None


set_model(SentimentModel())
