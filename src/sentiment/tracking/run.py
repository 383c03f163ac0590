"""One run: parameters, figures per epoch, data, figures and models."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME

from sentiment.errors import translate
from sentiment.settings import set_environment
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tracking.mlflow_store import STORE_ERRORS, Store
from sentiment.tracking.provenance import SOURCE_TAGS, source_tags
from sentiment.training.epoch_metrics import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # 26 MB that training can do without

PARAMS_PER_BATCH = 100
"""Most parameters that the MLflow API takes in one request."""

BEST_VALIDATION_AUC = "best_validation_auc"
"""AUC of the run's model on the whole validation split; of a search, that of its winner."""

Split = Literal["validation", "tuning"]
"""What a training is validated on: the whole validation split, or a trial's fold of it. Prefix of metrics."""

ERROR_TAG = "error"

AT_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Who hears of an error has waited for the store long enough; the first retry comes without a pause."""

VALIDATION_AUC = "validation_auc"
"""Metric that every epoch has, among others: they are logged in one request."""


class Run:
    """A run in the store; as a context manager it ends the run with the status that fits.

    FINISHED; KILLED after `kill()` or Ctrl-C; FAILED, with the error as a tag, after `fail()` or an error.
    Where the store fails at that, an exception goes first, and the run stays RUNNING for who goes on in it.
    """

    def __init__(self, store: Store, run_id: str, epochs: Iterable[int] = ()) -> None:
        """Take a run of the store; epochs: numbers of those whose figures it has."""
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
        with suppress(*STORE_ERRORS), set_environment(**AT_ONCE):
            if isinstance(error, KeyboardInterrupt):
                self._status = "KILLED"
            else:
                self.fail(f"{type(error).__name__}: {translate(error) or error}")
            self.store.client.set_terminated(self.id, self._status)

    def kill(self) -> None:
        """Mark the run as ended early on purpose."""
        self._status = "KILLED"

    def fail(self, error: str) -> None:
        """Mark the run as failed, with the error as a tag."""
        self._status = "FAILED"
        self.tag({ERROR_TAG: error})

    def nested(self, name: str, stage: str, tags: Mapping[str, str] | None = None) -> "Run":
        """Start a run below this one, from the same source."""
        return start_run(self.store, stage, name, parent=self, tags=tags)

    @property
    def has_epochs(self) -> bool:
        """Whether figures of an epoch are logged."""
        return bool(self._epochs)

    def tags(self) -> dict[str, str]:
        """Return the tags that the run has in the store."""
        return dict(self.store.client.get_run(self.id).data.tags)

    def params(self) -> dict[str, str]:
        """Return the parameters that the run has in the store."""
        return dict(self.store.client.get_run(self.id).data.params)

    def find_nested(self, tags: Mapping[str, str]) -> "Run | None":
        """Return the newest run below this one that has these tags, as it is; None where there is none."""
        return find_tagged_run(self.store, {MLFLOW_PARENT_RUN_ID: self.id, **tags})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags in one request."""
        self.store.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in tags.items()])

    def retag(self, prefix: str, tags: Mapping[str, str]) -> None:
        """Set tags below a prefix, and remove those below it that are not among them.

        For a run that is reopened: what held then may not hold now. prefix: with its dot. tags: without it.
        """
        current = {f"{prefix}{name}": value for name, value in tags.items()}
        for name in self.tags():
            if name.startswith(prefix) and name not in current:
                self.store.client.delete_tag(self.id, name)
        self.tag(current)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones by dotted name."""
        entities = [Param(name, str(value)) for name, value in flattened(params).items()]
        for start in range(0, len(entities), PARAMS_PER_BATCH):
            self.store.client.log_batch(self.id, params=entities[start : start + PARAMS_PER_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log figures in one request."""
        now = int(time.time() * 1000)
        self.store.client.log_batch(self.id, [Metric(k, float(v), now, step) for k, v in metrics.items()])

    def log_epoch(self, epoch: EpochMetrics, split: Split = "validation") -> None:
        """Log one epoch's metrics, those of its layers too, once: a resumed run may have them.

        Args:
            epoch: the metrics of the epoch.
            split: what the epoch was validated on.
        """
        if epoch.epoch in self._epochs:
            return
        self._epochs.add(epoch.epoch)
        metrics = {**asdict(epoch), **epoch.gradients.metrics()}
        del metrics["epoch"], metrics["gradients"]
        self.log_metrics({_of_split(k, split): value for k, value in metrics.items()}, step=epoch.epoch)

    def log_best(self, best: EpochMetrics, split: Split = "validation") -> None:
        """Log which epoch's weights were retained, and its AUC; the last one need not be the best."""
        self.log_metrics({"best_epoch": best.epoch, f"best_{split}_auc": best.validation_auc})

    def log_data(self, split: str, reviews: TokenizedReviews, path: Path) -> None:
        """Log a split as an input of the run, known by its content's digest."""
        source = CodeDatasetSource({"path": path.as_posix(), "dvc.stage": "tokenize"})
        dataset = Dataset(
            name=f"reviews-{split}",
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
            # A dataset is one row for all runs. MLflow looks for it, then makes it; of two processes that do
            # so at once one fails, and finds it when it looks again.
            self.store.client.log_inputs(self.id, inputs)

    def log_figures(self, figures: Mapping[str, "Figure"], folder: str) -> None:
        """Log figures as images."""
        for name, figure in figures.items():
            self.store.client.log_figure(self.id, figure, f"{folder}/{name}")

    def log_page(self, name: str, html: str) -> None:
        """Log a page, which the UI shows among the artifacts."""
        self.store.client.log_text(self.id, html, name)


def start_run(
    store: Store,
    stage: str,
    name: str,
    parent: Run | None = None,
    tags: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
) -> Run:
    """Start a run of a stage, tagged with the code and the experiment that it comes from.

    Args:
        store: where.
        stage: that the run is of.
        name: of the run.
        parent: the run that it is below; both come from the same source.
        tags: others that it has from the first moment, so that a killed process leaves no run without them.
        source: tags of the source where that is not this process's working tree.
    """
    if source is None:
        source = source_tags() if parent is None else source_of(parent)
    tags = {"stage": stage, MLFLOW_SOURCE_NAME: f"stages/{stage}.py", **source, **(tags or {})}
    if parent is not None:
        tags[MLFLOW_PARENT_RUN_ID] = parent.id
    return Run(store, store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)


def source_of(run: Run) -> dict[str, str]:
    """Return a run's tags of its source."""
    return {name: value for name, value in run.tags().items() if name in SOURCE_TAGS}


def find_tagged_run(store: Store, tags: Mapping[str, str]) -> Run | None:
    """Return the newest run that has these tags, as it is; None where there is none."""
    condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return Run(store, found[0].info.run_id) if found else None


def reopen_run(store: Store, run_id: str) -> Run | None:
    """Go on in a run whose process died or failed; None where the experiment does not have it any more."""
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
    names = (VALIDATION_AUC, _of_split(VALIDATION_AUC, "tuning"))
    history = [metric for name in names for metric in store.client.get_metric_history(run_id, name)]
    return Run(store, run_id, (metric.step for metric in history))


def _of_split(name: str, split: Split) -> str:
    return f"{split}{suffix}" if (suffix := name.removeprefix("validation")) != name else name


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters by dotted name, sections in a list by their number."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{name}."))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat.update(flattened({str(number): item for number, item in enumerate(value)}, f"{name}."))
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat
