"""Models in MLflow: code, weights and tokenizer as plain files, a signature, an example."""

import importlib.metadata
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

import sentiment
from sentiment.model.predictor import SERVED_FOLDER
from sentiment.tracking.run import Run

NAME = "sentiment"
PACKAGE = Path(sentiment.__file__).parent
SERVING_CODE = PACKAGE / "tracking" / "serving.py"
SIGNATURE = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("double", "probability")]))
EXAMPLE = pd.DataFrame({"text": ["A small film with a large heart.", "Two hours that I shall not get back."]})
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
)
"""What `serving.py` imports, by way of the package."""


def log_model(run: Run, folder: Path) -> None:
    """Log a folder that `Predictor.load` reads as the run's model; once per run."""
    outputs = run.store.client.get_run(run.id).outputs
    if outputs is not None and outputs.model_outputs:
        return
    mlflow.set_experiment(experiment_id=run.store.experiment_id)  # else the model lands in "Default"
    Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        name=NAME,
        run_id=run.id,
        python_model=str(SERVING_CODE),
        artifacts={SERVED_FOLDER: str(folder)},
        code_paths=[str(PACKAGE)],
        signature=SIGNATURE,
        input_example=EXAMPLE,
        pip_requirements=[f"{package}=={_public_version(package)}" for package in REQUIREMENTS],
    )


def _public_version(package: str) -> str:
    """Return a version that an index knows: `2.13.0`, not the local build's `2.13.0+cpu`."""
    return importlib.metadata.version(package).partition("+")[0]
