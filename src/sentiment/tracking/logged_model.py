"""Models in MLflow: code, weights and tokenizer as plain files, a signature, an example."""

import importlib.metadata
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.types.schema import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

import sentiment
from sentiment.model.model_files import WEIGHTS_FILE
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
    """Log a folder that `Predictor.load` reads as the run's model; once per run.

    Again where the one that the run has was deleted. One that is incomplete, since its files are gone or a
    kill came while it was logged, is deleted first.
    """
    client = run.store.client
    outputs = client.get_run(run.id).outputs
    for output in outputs.model_outputs if outputs is not None else ():
        model = _existing(client, output.model_id)
        if model is None:
            continue
        if _is_whole(client, model, folder.name):
            return
        client.delete_logged_model(model.model_id)
    mlflow.set_experiment(experiment_id=run.store.experiment_id)  # else the model lands in "Default"
    logged = Model.log(
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
    # MLflow names the commit of this process, which need not be the one that trained the model.
    model_id = logged.model_id
    commit = run.tags().get(MLFLOW_GIT_COMMIT)
    if commit is not None:
        client.set_logged_model_tags(model_id, {MLFLOW_GIT_COMMIT: commit})
    elif MLFLOW_GIT_COMMIT in client.get_logged_model(model_id).tags:
        client.delete_logged_model_tag(model_id, MLFLOW_GIT_COMMIT)


def _existing(client: MlflowClient, model_id: str) -> LoggedModel | None:
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _is_whole(client: MlflowClient, model: LoggedModel, folder: str) -> bool:
    """Whether a logged model has its files; folder: name of the one that it was logged from."""
    if model.status != LoggedModelStatus.READY:
        return False
    listed = [
        client.list_logged_model_artifacts(model.model_id, path) for path in (None, f"artifacts/{folder}")
    ]
    present = {file.path for files in listed for file in files}
    return {MLMODEL_FILE_NAME, f"artifacts/{folder}/{WEIGHTS_FILE}"} <= present


def _public_version(package: str) -> str:
    """Return a version that an index knows: `2.13.0`, not the local build's `2.13.0+cpu`."""
    return importlib.metadata.version(package).partition("+")[0]
