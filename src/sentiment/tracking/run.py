"""An MLflow run: parameters, metrics per epoch, datasets, plots and tags."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

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
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tracking.mlflow_store import STORE_ERRORS, Store
from sentiment.tracking.provenance import SOURCE_TAGS, build_redactor, collect_source_tags
from sentiment.tracking.ui import describe_run, flatten
from sentiment.training.epoch_metrics import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imports 26 MB that training does not need

PARAMS_PER_BATCH = 100
"""Most parameters that the MLflow API accepts in one request."""

EPOCH_AUC = ("validation_auc", "tuning_auc")
"""Of these metrics, every epoch has one; all metrics of an epoch are logged in one request."""

VALIDATION_AUC = "validation.auc"
"""Metric of a model: its AUC on the whole validation split."""

BEST_TUNING_AUC = "best_tuning_auc"
"""Metric of a trial's model: its AUC on the tuning fold, which drives pruning and ranking."""

Split = Literal["validation", "tuning"]
"""What a training is validated on: the whole validation split, or a trial's fold of it. Prefix of metrics."""

CHANGED_TAG = "params.changed"
"""On a resumed run: the parameters whose values in params.yaml have changed since it started."""

ERROR_TAG = "error"

FAIL_FAST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Used to report an error, when the user has already waited for the store; the first retry has no delay."""


@dataclass(frozen=True)
class ModelResult:
    """The logged model and the dataset that metrics belong to."""

    model_id: str
    dataset_name: str
    """From `dataset_name`."""
    dataset_digest: str
    """MD5 of the split's tokens."""


class Run:
    """A run in the tracking store; as a context manager, it ends the run with the right status.

    The status is FINISHED; KILLED after `kill()` or Ctrl-C; FAILED, with the error as a tag, after `fail()`
    or an exception. If the store fails at that moment, the original exception propagates and the run stays
    RUNNING, so that a restart can resume it.
    """

    def __init__(self, store: Store, run_id: str, epochs: Iterable[int] = ()) -> None:
        """Wrap an existing run; epochs: numbers of the epochs whose metrics it already has."""
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
        """Mark the run as stopped on purpose, such as a pruned trial."""
        self._status = "KILLED"

    def fail(self, error: str) -> None:
        """Mark the run as failed, with the error as a tag."""
        self._status = "FAILED"
        self.tag({ERROR_TAG: error})

    def start_nested(self, name: str, stage: str, tags: Mapping[str, str] | None = None) -> "Run":
        """Start a child run with the same source tags."""
        return start_run(self.store, stage, name, parent=self, tags=tags)

    @property
    def has_epochs(self) -> bool:
        """Whether metrics of an epoch are logged."""
        return bool(self._epochs)

    def tags(self) -> dict[str, str]:
        """Return the tags that the run has in the store."""
        return dict(self.store.client.get_run(self.id).data.tags)

    def params(self) -> dict[str, str]:
        """Return the parameters that the run has in the store."""
        return dict(self.store.client.get_run(self.id).data.params)

    def find_nested(self, tags: Mapping[str, str]) -> "Run | None":
        """Return the newest child run that has these tags, unchanged; None if there is none."""
        return find_tagged_run(self.store, {MLFLOW_PARENT_RUN_ID: self.id, **tags})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags in one request."""
        self.store.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in tags.items()])

    def replace_tags(self, prefix: str, tags: Mapping[str, str]) -> None:
        """Set tags with a prefix, and delete all other tags that have it.

        A reopened run may hold tags that no longer apply.

        Args:
            prefix: of the tags, with its dot.
            tags: by name without the prefix.
        """
        current = {f"{prefix}{name}": value for name, value in tags.items()}
        for name in self.tags():
            if name.startswith(prefix) and name not in current:
                self.store.client.delete_tag(self.id, name)
        self.tag(current)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters by their dotted path in `params.yaml`, lists of sections by index.

        MLflow does not let a run's parameters change. If a resumed run has other values (of parameters that
        do not affect the model), they go to the tag `params.changed`.
        """
        redact = build_redactor()
        given = {name: redact(str(value)) for name, value in flatten(params).items()}
        logged = self.params()
        new = [Param(name, value) for name, value in given.items() if name not in logged]
        for start in range(0, len(new), PARAMS_PER_BATCH):
            self.store.client.log_batch(self.id, params=new[start : start + PARAMS_PER_BATCH])
        changed = [
            f"{name}: {logged[name]}, now {value}"
            for name, value in given.items()
            if logged.get(name, value) != value
        ]
        if changed:
            self.tag({CHANGED_TAG: "; ".join(changed)})

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, result: ModelResult | None = None
    ) -> None:
        """Log metrics in one request.

        Args:
            metrics: values by name.
            step: the epoch, for metrics that each epoch has.
            result: the logged model and the dataset that the metrics belong to, so that the UI's Models page
                has them as columns.
        """
        now = int(time.time() * 1000)
        links = {} if result is None else asdict(result)
        self.store.client.log_batch(
            self.id, [Metric(name, float(value), now, step, **links) for name, value in metrics.items()]
        )

    def log_epoch(self, epoch: EpochMetrics, split: Split = "validation") -> None:
        """Log the metrics of an epoch and its layers, unless the run, being resumed, already has them.

        Args:
            epoch: its metrics.
            split: what the epoch was validated on.
        """
        if epoch.epoch in self._epochs:
            return
        self._epochs.add(epoch.epoch)
        metrics = {**asdict(epoch), **epoch.gradients.metrics()}
        del metrics["epoch"], metrics["gradients"]
        renamed = {re.sub("^validation", split, name): value for name, value in metrics.items()}
        self.log_metrics(renamed, step=epoch.epoch)

    def log_best(self, best: EpochMetrics, split: Split = "validation") -> None:
        """Log the number and the AUC of the best epoch, whose weights the model has."""
        auc = VALIDATION_AUC if split == "validation" else BEST_TUNING_AUC
        self.log_metrics({"best_epoch": best.epoch, auc: best.validation_auc})

    def log_data(self, split: str, reviews: TokenizedReviews, path: Path, stage: str = "tokenize") -> None:
        """Log a split as an input of the run, by the digest of its tokens; stage: that writes the path."""
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
        """Log matplotlib figures as images."""
        for name, figure in figures.items():
            self.store.client.log_figure(self.id, figure, f"{folder}/{name}")

    def log_text(self, name: str, text: str) -> None:
        """Log a text or HTML file, which the UI shows among the artifacts."""
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
        store: the tracking store.
        stage: the DVC stage that the run belongs to.
        name: of the run.
        parent: the parent run, whose source tags the run gets.
        tags: further tags, set when the run is created, so that a killed process leaves no run without them.
        source: source tags, if the source is not this process's working tree.
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
    """Return the newest run that has these tags, unchanged; None if there is none."""
    condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return Run(store, found[0].info.run_id) if found else None


def reopen_run(store: Store, run_id: str) -> Run | None:
    """Resume a run whose process died or failed; None if the experiment no longer has it."""
    try:
        found = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    if found.info.lifecycle_stage != "active" or found.info.experiment_id != store.experiment_id:
        return None
    store.client.update_run(run_id, status="RUNNING")
    if ERROR_TAG in found.data.tags:
        store.client.delete_tag(run_id, ERROR_TAG)
    history = [metric for name in EPOCH_AUC for metric in store.client.get_metric_history(run_id, name)]
    return Run(store, run_id, (metric.step for metric in history))
