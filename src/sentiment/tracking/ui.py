"""Texts and views of the MLflow UI: descriptions, the saved view of the experiment, and names of runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import Experiment
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from sentiment.tracking.provenance import (
    COMMIT_TAG,
    EXPERIMENT_TAG,
    build_redactor,
    collect_source_tags,
)

if TYPE_CHECKING:
    from sentiment.tracking.mlflow_store import Store

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Tag of an experiment for model training. MLflow 3.17 opens that view by `workflowType` in the URL."""

VIEW_TAG = "mlflow.sharedViewState."
"""Prefix of the experiment tags in which the UI stores saved views of the table of runs."""

COLUMNS = (
    "metrics.`test.auc`",
    "metrics.`validation.auc`",
    "tags.`selected`",
    "tags.`verdict.over_baseline`",
    "tags.`verdict.over_reference`",
    "params.`train.clip.kind`",
    "params.`train.clip.threshold`",
    "params.`train.optimizer.learning_rate`",
    "attributes.`Dataset`",
)
"""Columns of the saved view, named by the UI's internal identifiers."""

VIEW_NAME = "Models by test AUC"
VIEW_CREATED_MS = 1_767_225_600_000
"""Time of creation of the saved view, 2026-01-01, which the UI requires. It is constant so that the view and
its id, a digest, do not change."""

EXPERIMENT_DESCRIPTION = """\
Sentiment of film reviews, classified by an LSTM with an n-gram branch.

| run | logged by | holds |
| --- | --- | --- |
| `train …` | `train` | the model that `params.yaml` describes; metrics and gradients of each epoch |
| `tune …` | `tune` | a hyperparameter search: counts of trials, the winner's parameters, `tune.html` |
| `trial N`, below `tune …` | `tune` | one trial; pruned trials have the status KILLED |

`evaluate` adds `validation.*`, `holdout.*` and `test.*` to the runs of the two candidates, and logs both as \
models: the **Models** page ranks them by `test.auc`. The tags `verdict.over_baseline` and \
`verdict.over_reference` compare a candidate with the baseline and with a linear model on the holdout split: \
better, no worse, worse, or cannot tell. The saved view **Models by test AUC** shows AUC, verdicts, clipping \
and learning rate side by side.

`validation_auc` is the AUC after each epoch, `validation.auc` that of the trained model, by which trials \
are ranked."""

RUN_DESCRIPTIONS = {
    "train": "Trains the configuration in `params.yaml`. `validation.auc` is the AUC of its best epoch; "
    "`evaluate` adds `test.*` and the logged model.",
    "tune": "A hyperparameter search around the configuration in `params.yaml`, with a child run per trial. "
    "`validation.auc` is the AUC of the winner, whose parameters are the tags `best.*`; the artifact "
    "`tune.html` shows all trials.",
}
"""Description of a run, by stage."""

TRIAL_DESCRIPTION = (
    "One trial of the search above. Trials are ranked by `validation.auc`. The winner also has the other "
    "`validation.*` and `test.*`, from `evaluate`."
)

MAX_CHANGES = 3
"""Maximum number of changes that the name of a run lists."""

MAX_VALUE_LENGTH = 24
"""Maximum length of a value in the name of a run; longer values are truncated."""


def experiment_tags() -> dict[str, str]:
    """Return the tags of the project's experiment: its kind, its description and the saved view."""
    return {
        KIND_TAG: KIND,
        MLFLOW_RUN_NOTE: EXPERIMENT_DESCRIPTION,
        f"{VIEW_TAG}{_compute_view_id()}": _serialize_view(),
    }


def describe_run(stage: str, *, is_nested: bool) -> str:
    """Return the description of a run, which the UI shows on its page."""
    return TRIAL_DESCRIPTION if is_nested else RUN_DESCRIPTIONS.get(stage, f"A run of the stage `{stage}`.")


def runs_page(experiment: Experiment) -> str:
    """Return the fragment of the UI's URL that opens the table of runs, in the saved view if it exists."""
    view_id = _compute_view_id()
    view = f"&viewStateShareKey={view_id}" if f"{VIEW_TAG}{view_id}" in experiment.tags else ""
    return f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning{view}"


def _serialize_view() -> str:
    """Return the saved view as the UI stores it in a tag."""
    state = {
        "searchFilter": "",
        "orderByKey": COLUMNS[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": COLUMNS,
    }
    times = {"createdAt": VIEW_CREATED_MS, "updatedAt": VIEW_CREATED_MS}
    return json.dumps({"name": VIEW_NAME, **times, "state": json.dumps(state)})


def _compute_view_id() -> str:
    """Return a digest of the saved view, so that a changed view is added beside the earlier one."""
    return hashlib.sha256(_serialize_view().encode()).hexdigest()[:16]


def build_run_name(store: "Store", stage: str, params: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Build a name that distinguishes a run from the previous run of its stage.

    The name contains the stage, the DVC experiment or else the commit, and the differences from the previous
    run, for example `train 0209158 · train.clip.threshold=0.5`.

    Args:
        store: tracking store.
        stage: name of the stage that the run belongs to.
        params: nested parameters of the run.
        digests: digests that the run is tagged with, by the name of the tag, such as `data.digest`.
    """
    source = collect_source_tags()
    version = source.get(EXPERIMENT_TAG) or source.get(COMMIT_TAG, "")[:7]
    previous_runs = store.client.search_runs(
        [store.experiment_id],
        f"tags.stage = '{stage}' AND attributes.run_name LIKE '{stage} %'",  # leaves out trials
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    name = f"{stage} {version}".strip()
    if not previous_runs:
        return name
    previous = previous_runs[0].data
    changes = [
        *_list_changed_params(previous.params, params),
        *(
            f"other {tag.partition('.')[0]}"
            for tag, digest in digests.items()
            if previous.tags.get(tag) != digest
        ),
    ]
    more = [f"{len(changes) - MAX_CHANGES} more"] if len(changes) > MAX_CHANGES else []
    return f"{name} · {', '.join([*changes[:MAX_CHANGES], *more]) or 'rerun'}"


def _list_changed_params(previous: Mapping[str, str], params: Mapping[str, Any]) -> list[str]:
    """Return `name=value` for each parameter that differs from the previous run.

    Sections that the previous run did not log are skipped.
    """
    redact = build_redactor()
    logged_sections = {name.partition(".")[0] for name in previous}
    changed = {
        name: redact(str(value))
        for name, value in flatten(params).items()
        if name.partition(".")[0] in logged_sections and previous.get(name) != redact(str(value))
    }
    return [
        f"{name}={value if len(value) <= MAX_VALUE_LENGTH else f'{value[:MAX_VALUE_LENGTH]}…'}"
        for name, value in changed.items()
    ]


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters by dotted name; sections in a list are named by their index."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat.update(flatten({str(index): item for index, item in enumerate(value)}, f"{name}."))
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat
