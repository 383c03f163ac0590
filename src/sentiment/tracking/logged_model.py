"""Models in MLflow: code, weights and tokenizer as plain files, with a signature and an input example."""

import importlib.metadata
import shutil
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
from sentiment.environment import get_public_version
from sentiment.files import compute_file_md5
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE
from sentiment.model.predictor import SERVED_FOLDER
from sentiment.tracking.run import Run

PACKAGE = Path(sentiment.__file__).parent
SERVING_CODE = PACKAGE / "serving.py"
SIGNATURE = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("double", "probability")]))
EXAMPLE = pd.DataFrame({"text": ["A small film with a large heart.", "Two hours that I shall not get back."]})
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
)
"""Packages that `serving.py` imports, directly or through the package `sentiment`."""

MODEL_PARAM_PREFIXES = ("model.", "train.")
"""Prefixes of the run's parameters that the model gets as well, so that the Models page shows them."""

CONFIG_TAG = "config.md5"
"""Tag of a logged model: MD5 of its configuration file, which contains its calibration."""

REGISTERED_TAG = "registered"
"""Tag of a logged model that a version of the registered model refers to: name of the version's git tag."""

MODEL_STEP = -1
"""Step of the logged model. No metric has this step, since MLflow would copy the run's metrics of the same
step to the model, without their dataset."""


def log_model(run: Run, name: str, folder: Path) -> str:
    """Log a model to the run that trained it, unless the run already has it.

    A model that was deleted is logged again. An incomplete model, whose files are missing or whose logging
    was interrupted, and one with another calibration are deleted and logged again; one with another
    calibration that is registered stays beside the new one.

    Args:
        run: run that trained the model.
        name: name of the logged model.
        folder: folder that `export_model` wrote.

    Returns:
        Id of the logged model.
    """
    client = run.store.client
    config_tag = {CONFIG_TAG: compute_file_md5(folder / CONFIG_FILE)}
    outputs = client.get_run(run.id).outputs
    for output in outputs.model_outputs if outputs is not None else ():
        model = find_logged_model(client, output.model_id)
        if model is None:
            continue
        if _is_complete(client, model):
            if config_tag.items() <= model.tags.items():
                return str(model.model_id)
            if REGISTERED_TAG in model.tags:
                continue
        client.delete_logged_model(model.model_id)
    model_id = _log_new_model(run, name, folder)
    client.set_logged_model_tags(model_id, config_tag)
    # MLflow tags the model with the current commit; replace it by the commit at which the model was trained.
    commit = run.tags().get(MLFLOW_GIT_COMMIT)
    if commit is not None:
        client.set_logged_model_tags(model_id, {MLFLOW_GIT_COMMIT: commit})
    elif MLFLOW_GIT_COMMIT in client.get_logged_model(model_id).tags:
        client.delete_logged_model_tag(model_id, MLFLOW_GIT_COMMIT)
    return model_id


def find_model_of_run(run: Run, name: str) -> str | None:
    """Return the id of the newest complete model with a name that a run has logged; None if it has none."""
    client = run.store.client
    outputs = client.get_run(run.id).outputs
    ids = [output.model_id for output in (outputs.model_outputs if outputs is not None else ())]
    models = [model for model_id in ids if (model := find_logged_model(client, model_id))]
    complete = [model for model in models if model.name == name and _is_complete(client, model)]
    return str(max(complete, key=lambda model: model.creation_timestamp).model_id) if complete else None


def tag_logged_model(run: Run, model_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a logged model; the Models page shows them as columns."""
    run.store.client.set_logged_model_tags(model_id, dict(tags))


def _log_new_model(run: Run, name: str, folder: Path) -> str:
    mlflow.set_experiment(experiment_id=run.store.experiment_id)  # otherwise the model is logged to "Default"
    with tempfile.TemporaryDirectory() as temporary:
        served = Path(temporary) / SERVED_FOLDER  # MLflow stores a folder under its own name
        shutil.copytree(folder, served)
        model = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name=name,
            run_id=run.id,
            step=MODEL_STEP,
            params={
                key: value for key, value in run.params().items() if key.startswith(MODEL_PARAM_PREFIXES)
            },
            python_model=str(SERVING_CODE),
            artifacts={SERVED_FOLDER: str(served)},
            code_paths=[str(PACKAGE)],
            signature=SIGNATURE,
            input_example=EXAMPLE,
            pip_requirements=[
                f"{package}=={get_public_version(importlib.metadata.version(package))}"
                for package in REQUIREMENTS
            ],
        )
    return str(model.model_id)


def find_logged_model(client: MlflowClient, model_id: str) -> LoggedModel | None:
    """Return the logged model; None if it was deleted."""
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _is_complete(client: MlflowClient, model: LoggedModel) -> bool:
    """Return whether a logged model is ready and its files exist."""
    if model.status != LoggedModelStatus.READY:
        return False
    listings = [
        client.list_logged_model_artifacts(model.model_id, path)
        for path in (None, f"artifacts/{SERVED_FOLDER}")
    ]
    existing_paths = {file.path for files in listings for file in files}
    return {MLMODEL_FILE_NAME, f"artifacts/{SERVED_FOLDER}/{WEIGHTS_FILE}"} <= existing_paths
