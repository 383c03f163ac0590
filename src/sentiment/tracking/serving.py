"""The model that MLflow serves, defined by this file's code: raw text in, probability out.

MLflow stores this file and the package beside the weights and runs it when it loads the model; nothing is
unpickled.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from sentiment.model.predictor import SERVED_FOLDER, Predictor
from sentiment.tracking.serving_input import answer_in_sentences, internal_error, texts_of

logger = logging.getLogger(__name__)


class SentimentModel(PythonModel):
    """Scores the column `text`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read weights, configuration and tokenizer."""
        self.predictor = Predictor.load(Path(context.artifacts[SERVED_FOLDER]))
        answer_in_sentences()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the column `probability` of a positive review for each row's `text`.

        Raises:
            AnsweredError: a row holds no text.
        """
        texts = texts_of(model_input)
        try:
            return pd.DataFrame({"probability": self.predictor.predict(texts)})
        except Exception:
            logger.exception("scoring failed")
            raise internal_error() from None


set_model(SentimentModel())
