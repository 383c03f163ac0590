"""An MLflow run: parameters, metrics per epoch, datasets, plots and tags."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
)

from sentiment.errors import translate
from sentiment.settings import set_environment
from sentiment.tracking.mlflow_store import STORE_ERRORS, Store
from sentiment.tracking.provenance import SOURCE_TAGS, build_redactor, collect_source_tags
from sentiment.tracking.ui import describe_run, flatten

if TYPE_CHECKING:  # imports that take seconds, which reading runs does not need
    from matplotlib.figure import Figure

    from sentiment.tokens.token_store import TokenizedReviews
    from sentiment.training.epoch_metrics import EpochMetrics

PARAMS_PER_BATCH = 100
"""Maximum number of parameters that the MLflow API accepts in one request."""

EPOCH_AUC = "validation_auc"
"""Metric that each epoch has. All metrics of an epoch are logged in one request."""

VALIDATION_AUC = "validation.auc"
"""Metric of a model: its AUC on the validation split."""

CHANGED_TAG = "params.changed"
"""Tag of a resumed run with the parameters whose values in params.yaml have changed since it started."""

ERROR_TAG = "error"

FAIL_FAST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Environment variables while an error is logged, so that the user does not wait long for a failed store."""


@dataclass(frozen=True)
class ModelResult:
    """The logged model and the dataset that metrics belong to.

    Attributes:
        model_id: id of the logged model.
        dataset_name: name of the dataset, from the function `dataset_name`.
        dataset_digest: MD5 of the split's tokens.
    """

    model_id: str
    dataset_name: str
    dataset_digest: str


class Run:
    """A run in the tracking store; as a context manager, it ends the run.

    The run ends with the status FINISHED; KILLED after `kill()` or Ctrl-C; FAILED, with the error as a tag,
    after `fail()` or an exception. If the store fails while an exception is handled, the exception propagates
    and the run stays RUNNING, so that a restart can resume it.
    """

    def __init__(self, store: Store, run_id: str, epochs: Iterable[int] = ()) -> None:
        """Wrap an existing run; `epochs` are the numbers of the epochs whose metrics it already has."""
        self.store = store
        self.id = run_id
        self._epochs = set(epochs)
        self._status = "FINISHED"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.store.client.set_terminated(self.id, self._status)
            return
        with suppress(*STORE_ERRORS), set_environment(**FAIL_FAST):
            if isinstance(error, KeyboardInterrupt):
                self._status = "KILLED"
            else:
                self.fail(f"{type(error).__name__}: {translate(error) or error}")
            self.store.client.set_terminated(self.id, self._status)

    def kill(self) -> None:
        """Set the status with which the run ends to KILLED, as for a pruned trial."""
        self._status = "KILLED"

    def fail(self, error: str) -> None:
        """Set the status with which the run ends to FAILED, and log the error as a tag."""
        self._status = "FAILED"
        self.tag({ERROR_TAG: error})

    def start_nested(self, name: str, stage: str, tags: Mapping[str, str] | None = None) -> "Run":
        """Start a child run of a stage, with the source tags of this run."""
        return start_run(self.store, stage, name, parent=self, tags=tags)

    @property
    def has_epochs(self) -> bool:
        """Whether the run has metrics of at least one epoch."""
        return bool(self._epochs)

    def tags(self) -> dict[str, str]:
        """Read the tags of the run from the store."""
        return dict(self.store.client.get_run(self.id).data.tags)

    def params(self) -> dict[str, str]:
        """Read the parameters of the run from the store."""
        return dict(self.store.client.get_run(self.id).data.params)

    def find_nested(self, tags: Mapping[str, str]) -> "Run | None":
        """Return the newest child run with these tags, without resuming it; None if there is none."""
        return find_tagged_run(self.store, {MLFLOW_PARENT_RUN_ID: self.id, **tags})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags in one request."""
        self.store.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in tags.items()])

    def replace_tags(self, prefix: str, tags: Mapping[str, str]) -> None:
        """Set tags with a prefix, and delete other tags with the prefix, which a resumed run may have.

        Args:
            prefix: prefix of the tag names, with its dot.
            tags: values of the tags by name, without the prefix.
        """
        current = {f"{prefix}{name}": value for name, value in tags.items()}
        for name in self.tags():
            if name.startswith(prefix) and name not in current:
                self.store.client.delete_tag(self.id, name)
        self.tag(current)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters by their dotted path in `params.yaml`; sections in a list are named by index.

        Parameters of an MLflow run cannot change. If a run is resumed with other values of parameters, which
        do not affect the model, the changes are logged in the tag `params.changed`.
        """
        redact = build_redactor()
        values = {name: redact(str(value)) for name, value in flatten(params).items()}
        logged = self.params()
        new = [Param(name, value) for name, value in values.items() if name not in logged]
        for start in range(0, len(new), PARAMS_PER_BATCH):
            self.store.client.log_batch(self.id, params=new[start : start + PARAMS_PER_BATCH])
        changed = [
            f"{name}: {logged[name]}, now {value}"
            for name, value in values.items()
            if logged.get(name, value) != value
        ]
        if changed:
            self.tag({CHANGED_TAG: "; ".join(changed)})

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, result: ModelResult | None = None
    ) -> None:
        """Log metrics in one request.

        Args:
            metrics: values of the metrics by name.
            step: epoch number for metrics of an epoch, otherwise 0.
            result: logged model and dataset that the metrics belong to, which the UI's Models page shows.
        """
        now = int(time.time() * 1000)
        links = {} if result is None else asdict(result)
        self.store.client.log_batch(
            self.id, [Metric(name, float(value), now, step, **links) for name, value in metrics.items()]
        )

    def log_model_metrics(self, metrics: Mapping[str, float], model_id: str) -> None:
        """Log metrics of a logged model whose dataset is not known."""
        now = int(time.time() * 1000)
        self.store.client.log_batch(
            self.id,
            [Metric(name, float(value), now, 0, model_id=model_id) for name, value in metrics.items()],
        )

    def log_epoch(self, metrics: "EpochMetrics") -> None:
        """Log the metrics of an epoch and its layers, unless the run was resumed and already has them."""
        if metrics.epoch in self._epochs:
            return
        self._epochs.add(metrics.epoch)
        values = {**asdict(metrics), **metrics.gradients.metrics()}
        del values["epoch"], values["gradients"]
        self.log_metrics(values, step=metrics.epoch)

    def log_best(self, best: "EpochMetrics") -> None:
        """Log number and AUC of the best epoch, whose weights are those of the model."""
        self.log_metrics({"best_epoch": best.epoch, VALIDATION_AUC: best.validation_auc})

    def log_data(self, split: str, reviews: "TokenizedReviews", path: Path, stage: str = "tokenize") -> None:
        """Log a split as an input of the run; `stage` is the DVC stage that writes its tokens to `path`."""
        source = CodeDatasetSource({"path": path.as_posix(), "dvc.stage": stage})
        dataset = Dataset(
            name=dataset_name(split),
            digest=reviews.digest,
            source_type=source._get_source_type(),
            source=source.to_json(),
            profile=json.dumps({"reviews": len(reviews), "tokens": len(reviews.ids)}),
        )
        inputs = [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, split)])]
        try:
            self.store.client.log_inputs(self.id, inputs)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(BAD_REQUEST):
                raise
            # All runs share one row per dataset. MLflow looks it up, then inserts it; if two processes do so
            # at once, one insert fails, and its second lookup finds the row.
            self.store.client.log_inputs(self.id, inputs)

    def log_figures(self, figures: Mapping[str, "Figure"], folder: str) -> None:
        """Log matplotlib figures as images, by the name of the file in `folder`."""
        for name, figure in figures.items():
            self.store.client.log_figure(self.id, figure, f"{folder}/{name}")

    def log_text(self, name: str, text: str) -> None:
        """Log a text or HTML file as an artifact."""
        self.store.client.log_text(self.id, text, name)


def dataset_name(split: str) -> str:
    """Return the name under which a split is logged as a dataset."""
    return f"reviews-{split}"


def start_run(
    store: Store,
    stage: str,
    name: str,
    parent: Run | None = None,
    tags: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
) -> Run:
    """Start a run of a stage, tagged with its source: the git commit and the DVC experiment.

    Args:
        store: tracking store.
        stage: name of the DVC stage that the run belongs to.
        name: name of the run.
        parent: parent run, whose source tags the run gets; None for a run without parent.
        tags: additional tags, set when the run is created, so that no run lacks them after a crash.
        source: source tags; None for those of the parent or, without a parent, of the working tree.
    """
    if source is None:
        inherited = parent.tags() if parent is not None else collect_source_tags()
        source = {name: value for name, value in inherited.items() if name in SOURCE_TAGS}
    tags = {
        "stage": stage,
        MLFLOW_SOURCE_NAME: f"stages/{stage}.py",
        MLFLOW_RUN_NOTE: describe_run(stage, is_nested=parent is not None),
        **source,
        **(tags or {}),
    }
    if parent is not None:
        tags[MLFLOW_PARENT_RUN_ID] = parent.id
    return Run(store, store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)


def find_tagged_run(store: Store, tags: Mapping[str, str]) -> Run | None:
    """Return the newest run with these tags, without resuming it; None if there is none."""
    condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return Run(store, found[0].info.run_id) if found else None


def reopen_run(store: Store, run_id: str) -> Run | None:
    """Set the status of a run to RUNNING and return it; None if the experiment no longer has the run."""
    try:
        stored_run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    if stored_run.info.lifecycle_stage != "active" or stored_run.info.experiment_id != store.experiment_id:
        return None
    store.client.update_run(run_id, status="RUNNING")
    if ERROR_TAG in stored_run.data.tags:
        store.client.delete_tag(run_id, ERROR_TAG)
    history = store.client.get_metric_history(run_id, EPOCH_AUC)
    return Run(store, run_id, (metric.step for metric in history))
