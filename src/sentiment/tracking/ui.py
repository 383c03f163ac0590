"""What the MLflow UI shows beside the numbers: the experiment's view and description, and names of runs."""

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
"""Marks the experiment as model training. MLflow 3.17 opens that view by `workflowType` in an address."""

VIEW_TAG = "mlflow.sharedViewState."
"""Prefix of the experiment tags in which the UI stores saved views of the table of runs."""

COLUMNS = (
    "metrics.`test.auc`",
    "metrics.`validation.auc`",
    "metrics.`test_gain_over_baseline.auc`",
    "tags.`selected`",
    "params.`train.clip.kind`",
    "params.`train.clip.threshold`",
    "params.`train.optimizer.learning_rate`",
    "attributes.`Dataset`",
)
"""Columns of the saved view, by the UI's own identifiers."""

VIEW_NAME = "Models by test AUC"
VIEW_CREATED_MS = 1_767_225_600_000
"""2026-01-01. The UI requires a time; a constant keeps the tag, and so its name, the same."""

EXPERIMENT_DESCRIPTION = """\
Sentiment of film reviews, classified by an LSTM with an n-gram branch.

| run | logged by | holds |
| --- | --- | --- |
| `train …` | `train` | the model that `params.yaml` describes; metrics and gradients of each epoch |
| `tune …` | `tune` | a hyperparameter search: counts of trials, the winner's parameters, `tune.html` |
| `trial N`, below `tune …` | `tune` | one trial; pruned trials have the status KILLED |

`evaluate` adds `validation.*` and `test.*` to the runs of the two candidates, and logs both as models: the \
**Models** page ranks them by `test.auc`. The saved view **Models by test AUC** shows AUC, clipping and \
learning rate side by side.

`validation_auc` is the AUC after each epoch, `validation.auc` that of the trained model. Trials are \
validated on the tuning fold: `tuning_auc` after each epoch, `best_tuning_auc` for ranking."""

RUN_DESCRIPTIONS = {
    "train": "Trains the configuration in `params.yaml`. `validation.auc` is the AUC of its best epoch; "
    "`evaluate` adds `test.*` and the logged model.",
    "tune": "A hyperparameter search around the configuration in `params.yaml`, with a child run per trial. "
    "`validation.auc` is the AUC of the winner, whose parameters are the tags `best.*`; the artifact "
    "`tune.html` shows all trials.",
}
"""By stage."""

TRIAL_DESCRIPTION = (
    "One trial of the search above. `best_tuning_auc` is its AUC on the tuning fold, which drives pruning "
    "and ranking. The winner also has `validation.*` and, from `evaluate`, `test.*`."
)

MAX_CHANGES = 3
"""Most changed parameters that a run's name lists."""
MAX_VALUE_LENGTH = 24
"""Characters of a value in a run's name; longer ones are truncated."""


def experiment_tags() -> dict[str, str]:
    """Return the tags that every experiment of this project has: kind, description, saved view."""
    return {KIND_TAG: KIND, MLFLOW_RUN_NOTE: EXPERIMENT_DESCRIPTION, f"{VIEW_TAG}{_view_id()}": _view()}


def describe_run(stage: str, *, is_nested: bool) -> str:
    """Return the description that the UI shows on the page of a run."""
    return TRIAL_DESCRIPTION if is_nested else RUN_DESCRIPTIONS.get(stage, f"A run of the stage `{stage}`.")


def runs_page(experiment: Experiment) -> str:
    """Return the fragment of the UI's address that opens the runs, in the saved view if it exists."""
    view = f"&viewStateShareKey={_view_id()}" if f"{VIEW_TAG}{_view_id()}" in experiment.tags else ""
    return f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning{view}"


def _view() -> str:
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


def _view_id() -> str:
    """Return a digest of the view: a later version of this project that changes it adds another view."""
    return hashlib.sha256(_view().encode()).hexdigest()[:16]


def build_run_name(store: "Store", stage: str, params: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Return a name that distinguishes a run from the previous one of its stage.

    For example `train 0209158 · train.clip.threshold=0.5`: the stage, the DVC experiment or the commit, and
    what differs from the previous run.

    Args:
        store: the tracking store.
        stage: of the run.
        params: nested parameters that the run is started with.
        digests: tags of the run whose values are digests, by the name of the tag (`data.digest`).
    """
    source = collect_source_tags()
    version = source.get(EXPERIMENT_TAG) or source.get(COMMIT_TAG, "")[:7]
    found = store.client.search_runs(
        [store.experiment_id],
        f"tags.stage = '{stage}' AND attributes.run_name LIKE '{stage} %'",  # leaves out trials
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    name = f"{stage} {version}".strip()
    if not found:
        return name
    tags = found[0].data.tags
    changes = [
        *_changed_params(found[0].data.params, params),
        *(f"other {tag.partition('.')[0]}" for tag, digest in digests.items() if tags.get(tag) != digest),
    ]
    more = [f"{len(changes) - MAX_CHANGES} more"] if len(changes) > MAX_CHANGES else []
    return f"{name} · {', '.join([*changes[:MAX_CHANGES], *more]) or 'rerun'}"


def _changed_params(before: Mapping[str, str], params: Mapping[str, Any]) -> list[str]:
    """Return `name=value` for each parameter with a new value; skip sections that were not logged."""
    redact = build_redactor()
    logged = {name.partition(".")[0] for name in before}
    changed = {
        name: redact(str(value))
        for name, value in flatten(params).items()
        if name.partition(".")[0] in logged and before.get(name) != redact(str(value))
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
