"""Selection of the winner of a search, and summary of the trials as a table and as metrics."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from sentiment.intervals import DECIMALS, Gain, compute_delong_gain
from sentiment.lineage import build_origin, log_configuration
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_config import Origin
from sentiment.tracking import Run
from sentiment.tuning.study import Search
from sentiment.tuning.trial_params import (
    CPU_SECONDS,
    OPTIMIZER_STEPS,
    PLANNED_OPTIMIZER_STEPS,
    WALL_SECONDS,
    apply_values,
    get_error,
    get_progress,
    rank_trials,
    require_validation_auc,
)
from sentiment.tuning.trial_records import (
    find_trial_run,
    load_or_retrain,
    open_trial_run,
    read_validation_logits,
)

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Names of Optuna's trial states in tables and metrics."""

ENDED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def build_trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return a table with one row per trial: state, AUCs, optimizer steps, parameters and error.

    `validation_auc` is the AUC of a finished trial; `best_validation_auc` is the highest one up to that row.
    `intermediate_auc` is the last intermediate AUC of a trial that did not finish. The cell of a parameter
    that a trial does not have is empty.
    """
    rows = [
        {
            "trial": trial.number,
            "state": STATES[trial.state],
            "validation_auc": get_validation_auc(trial),
            "intermediate_auc": get_last_intermediate_auc(trial),
            "optimizer_steps": trial.user_attrs.get(OPTIMIZER_STEPS),
            "planned_optimizer_steps": trial.user_attrs.get(PLANNED_OPTIMIZER_STEPS),
        }
        for trial in study.trials
    ]
    table = pd.DataFrame(rows)
    table["validation_auc"] = table["validation_auc"].astype(float)
    table["intermediate_auc"] = table["intermediate_auc"].astype(float)
    table.insert(4, "best_validation_auc", table["validation_auc"].cummax().ffill())
    for name in sorted({name for trial in study.trials for name in trial.params}):
        table[name] = [trial.params.get(name) for trial in study.trials]
    table["error"] = [get_error(trial) for trial in study.trials]
    return table


def summarize_search(study: optuna.Study, winner: int, gain: Gain | None = None) -> dict[str, Any]:
    """Return the content of the metrics file.

    It contains no durations, so that identical trials produce an identical file.

    Args:
        study: study of the search.
        winner: number of the winning trial.
        gain: gain of the winner over trial 0; None if trial 0 did not finish.
    """
    best = study.trials[winner]
    saved = compute_pruning_savings(study)
    return {
        "trials": count_trials_by_state(study),
        "best": {
            "trial": best.number,
            "validation_auc": _round(require_validation_auc(best)),
            "params": best.params,
        },
        "gain_over_trial_0": None if gain is None else gain.to_dict(),
        "compute_saved": None if saved is None else _round(saved),
    }


def count_trials_by_state(study: optuna.Study) -> dict[str, int]:
    """Return the numbers of finished, pruned and failed trials, by the name of the state."""
    return {STATES[state]: sum(trial.state == state for trial in study.trials) for state in ENDED_STATES}


def compute_pruning_savings(study: optuna.Study) -> float | None:
    """Compute the share of optimizer steps that pruning saved.

    Returns:
        Number of steps that pruned trials did not take, divided by the number of steps of all trials without
        pruning. A failed trial counts with the steps that it took. None if no trial recorded its progress.
    """
    total_without_pruning = saved = 0
    for trial in study.trials:
        progress = get_progress(trial)
        if progress is not None:
            pruned = trial.state == TrialState.PRUNED
            total_without_pruning += progress.planned_optimizer_steps if pruned else progress.optimizer_steps
            saved += progress.planned_optimizer_steps - progress.optimizer_steps if pruned else 0
    return saved / total_without_pruning if total_without_pruning else None


def build_search_metrics(study: optuna.Study) -> dict[str, float]:
    """Return the metrics of the search's MLflow run: counts by state, compute saved, wall and CPU time.

    The times are sums over all trials, so with several workers the wall time exceeds that of the search.
    """
    metrics: dict[str, float] = {
        f"trials_{name}": count for name, count in count_trials_by_state(study).items()
    }
    if (saved := compute_pruning_savings(study)) is not None:
        metrics["compute_saved"] = saved
    return {**metrics, **_sum_durations(study.trials)}


def get_validation_auc(trial: FrozenTrial) -> float | None:
    """Return the validation AUC of a finished trial; None if the trial did not finish."""
    return trial.value if trial.state == TrialState.COMPLETE else None


def get_last_intermediate_auc(trial: FrozenTrial) -> float | None:
    """Return the last intermediate AUC of a trial that did not finish; None if there is none."""
    values = trial.intermediate_values
    return values[max(values)] if values and trial.state != TrialState.COMPLETE else None


def _sum_durations(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Return the sums of the trials' recorded wall and CPU times in seconds, by user attribute."""
    recorded = {
        name: [trial.user_attrs[name] for trial in trials if name in trial.user_attrs]
        for name in (WALL_SECONDS, CPU_SECONDS)
    }
    return {name: float(sum(seconds)) for name, seconds in recorded.items() if seconds}


def _round(value: float) -> float:
    return round(value, DECIMALS)


@dataclass(frozen=True)
class Winner:
    """The winning trial of a search.

    Attributes:
        number: trial number.
        model: trained model of the trial.
        origin: digests of the parameters, data and code that the model was trained with.
        gain: gain in validation AUC over trial 0; None if trial 0 did not finish. Its interval does not
            account for the selection of the winner as the best of many trials.
        run: MLflow run of the trial.
    """

    number: int
    model: SentimentClassifier
    origin: Origin
    gain: Gain | None
    run: Run


def find_winner(search: Search, parent: Run) -> Winner:
    """Select the winner among the finished trials, of which there must be at least one.

    The winner is the trial with the highest validation AUC; ties are resolved in favour of the earliest. Its
    AUC is biased upwards by this selection, so evaluate compares its model with the baseline on the holdout
    split.

    Args:
        search: search whose trials have ended.
        parent: MLflow run of the search.
    """
    trials = search.load_trials()
    trial = rank_trials(trials)[0]
    retained = load_or_retrain(search, trial)
    gain = None
    if trials[0].state == TrialState.COMPLETE:
        logits = _read_or_recompute_logits(search, trials[0])
        gain = Gain(*compute_delong_gain(search.reviews.validation.labels, retained.logits, logits))
    params = apply_values(search.params, trial.params)
    origin = build_origin(params, search.reviews, search.name, trial.number)
    run = find_trial_run(parent, trial.number)
    if run is None:  # the tracking store has changed since the trial ended
        with open_trial_run(parent, search, trial.number) as run:
            log_configuration(run, params, search.reviews, origin)
    return Winner(trial.number, retained.model, origin, gain, run)


def _read_or_recompute_logits(search: Search, trial: FrozenTrial) -> NDArray[np.float32]:
    logits = read_validation_logits(search, trial.number)
    return load_or_retrain(search, trial).logits if logits is None else logits
