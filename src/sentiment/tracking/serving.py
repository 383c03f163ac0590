"""The model that MLflow serves, defined by this file's code: raw text in, probability out.

MLflow stores this file and the package beside the weights and runs it when it loads the model; nothing is
unpickled.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from sentiment.model.predictor import SERVED_FOLDER, Predictor


class SentimentModel(PythonModel):
    """Scores the column `text`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read weights, configuration and tokenizer."""
        self.predictor = Predictor.load(Path(context.artifacts[SERVED_FOLDER]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the column `probability` of a positive review for each row's `text`."""
        return pd.DataFrame({"probability": self.predictor.predict(model_input["text"].tolist())})


set_model(SentimentModel())
