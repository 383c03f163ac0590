"""Models in MLflow: code, weights and tokenizer as plain files, with a signature and an input example."""

import importlib.metadata
import tempfile
from collections.abc import Mapping
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
from sentiment.model.model_files import WEIGHTS_FILE, copy_model
from sentiment.model.predictor import SERVED_FOLDER
from sentiment.tracking.run import Run

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
"""What `serving.py` imports, directly and through the package."""

PARAMS_OF_MODEL = ("model.", "train.")
"""Prefixes of the run's parameters that the model has too, so that the Models page shows them."""


NO_STEP = -1
"""No metric has this step: MLflow copies metrics of a step to the model, without their dataset."""


def log_model(run: Run, name: str, folder: Path, tokenizer: Path) -> str:
    """Log a model to the run that trained it, unless the run already has it, and return its id.

    The model is logged again if it was deleted. If it is incomplete, because its files are missing or the
    process was killed while it was logged, it is deleted and logged again.

    Args:
        run: the run that trained the model.
        name: of the logged model.
        folder: with weights and configuration.
        tokenizer: the tokenizer's file.
    """
    client = run.store.client
    outputs = client.get_run(run.id).outputs
    for output in outputs.model_outputs if outputs is not None else ():
        model = _find_model(client, output.model_id)
        if model is None:
            continue
        if _is_complete(client, model):
            return str(model.model_id)
        client.delete_logged_model(model.model_id)
    model_id = _log_files(run, name, folder, tokenizer)
    # MLflow records the commit of this process; the model may have been trained at another one.
    commit = run.tags().get(MLFLOW_GIT_COMMIT)
    if commit is not None:
        client.set_logged_model_tags(model_id, {MLFLOW_GIT_COMMIT: commit})
    elif MLFLOW_GIT_COMMIT in client.get_logged_model(model_id).tags:
        client.delete_logged_model_tag(model_id, MLFLOW_GIT_COMMIT)
    return model_id


def tag_logged_model(run: Run, model_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a logged model, which the Models page shows as columns."""
    run.store.client.set_logged_model_tags(model_id, dict(tags))


def _log_files(run: Run, name: str, folder: Path, tokenizer: Path) -> str:
    mlflow.set_experiment(experiment_id=run.store.experiment_id)  # else the model goes to "Default"
    with tempfile.TemporaryDirectory() as temporary:
        served = Path(temporary) / SERVED_FOLDER
        copy_model(folder, served, tokenizer)
        logged = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name=name,
            run_id=run.id,
            step=NO_STEP,
            params={key: value for key, value in run.params().items() if key.startswith(PARAMS_OF_MODEL)},
            python_model=str(SERVING_CODE),
            artifacts={SERVED_FOLDER: str(served)},
            code_paths=[str(PACKAGE)],
            signature=SIGNATURE,
            input_example=EXAMPLE,
            pip_requirements=[f"{package}=={_public_version(package)}" for package in REQUIREMENTS],
        )
    return str(logged.model_id)


def _find_model(client: MlflowClient, model_id: str) -> LoggedModel | None:
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _is_complete(client: MlflowClient, model: LoggedModel) -> bool:
    """Return whether a logged model is ready and has its files."""
    if model.status != LoggedModelStatus.READY:
        return False
    listed = [
        client.list_logged_model_artifacts(model.model_id, path)
        for path in (None, f"artifacts/{SERVED_FOLDER}")
    ]
    present = {file.path for files in listed for file in files}
    return {MLMODEL_FILE_NAME, f"artifacts/{SERVED_FOLDER}/{WEIGHTS_FILE}"} <= present


def _public_version(package: str) -> str:
    """Return the version without the local build's suffix, as an index has it: 2.13.0 for 2.13.0+cpu."""
    return importlib.metadata.version(package).partition("+")[0]
