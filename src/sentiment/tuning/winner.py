"""The winner of a search, and the search as a table and as metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from sklearn.metrics import roc_auc_score

from sentiment.intervals import DECIMALS, Gain, compute_delong_gain
from sentiment.lineage import build_origin, log_configuration
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import Origin
from sentiment.tracking import Run
from sentiment.tuning.holdout import HoldoutResult, rank_on_holdout
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
    require_tuning_auc,
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
"""Names of trial states in tables and metrics."""

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def compute_gain_over_trial_0(
    study: optuna.Study,
    winner: int,
    labels: NDArray[np.integer],
    logits: Mapping[int, NDArray[np.floating] | None],
) -> Gain | None:
    """Compute by how much the winner's AUC on the validation split exceeds that of trial 0.

    The confidence interval, at 95%, is that of two given models: it does not account for the winner being the
    best of many.

    Args:
        study: the study.
        winner: number of the trial that won.
        labels: of all validation reviews, 0 or 1, shape (reviews,).
        logits: by trial number, of the same reviews. If those of either trial are missing, the gain is the
            difference of their tuning AUCs and has no interval.

    Returns:
        The gain; None if trial 0 did not finish.
    """
    first = study.trials[0]
    if first.state != TrialState.COMPLETE:
        return None
    ours, theirs = logits.get(winner), logits.get(first.number)
    if ours is not None and theirs is not None:
        return Gain(*compute_delong_gain(labels, ours, theirs))
    return Gain(require_tuning_auc(study.trials[winner]) - require_tuning_auc(first), None)


def build_trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return a table with one row per trial: state, AUCs, optimizer steps, parameters and error.

    `tuning_auc` is the AUC of a finished trial on the fold that prunes and ranks trials; `best_tuning_auc` is
    the highest of them up to that row. `intermediate_auc` is the last intermediate evaluation of a trial that
    did not finish. A parameter that a trial does not have is missing in its row.
    """
    rows = [
        {
            "trial": trial.number,
            "state": STATES[trial.state],
            "tuning_auc": get_tuning_auc(trial),
            "intermediate_auc": get_last_intermediate_auc(trial),
            "optimizer_steps": trial.user_attrs.get(OPTIMIZER_STEPS),
            "planned_optimizer_steps": trial.user_attrs.get(PLANNED_OPTIMIZER_STEPS),
        }
        for trial in study.trials
    ]
    table = pd.DataFrame(rows)
    table["tuning_auc"] = table["tuning_auc"].astype(float)
    table["intermediate_auc"] = table["intermediate_auc"].astype(float)
    table.insert(4, "best_tuning_auc", table["tuning_auc"].cummax().ffill())
    for name in sorted({name for trial in study.trials for name in trial.params}):
        table[name] = [trial.params.get(name) for trial in study.trials]
    table["error"] = [get_error(trial) for trial in study.trials]
    return table


def summarize_search(
    study: optuna.Study, winner: int, validation_auc: float, gain: Gain | None = None
) -> dict[str, Any]:
    """Return the content of the metrics file, without times: it must be equal if the trials are.

    Args:
        study: the study.
        winner: number of the trial that won.
        validation_auc: of the winner, on the whole validation split.
        gain: of the winner over trial 0.
    """
    best = study.trials[winner]
    saved = compute_pruning_savings(study)
    return {
        "trials": count_trials_by_state(study),
        "best": {
            "trial": best.number,
            "tuning_auc": _rounded(require_tuning_auc(best)),
            "validation_auc": _rounded(validation_auc),
            "params": best.params,
        },
        "gain_over_trial_0": None if gain is None else gain.to_dict(),
        "compute_saved": None if saved is None else _rounded(saved),
    }


def count_trials_by_state(study: optuna.Study) -> dict[str, int]:
    """Count the trials that finished, were pruned and failed."""
    return {STATES[state]: sum(trial.state == state for trial in study.trials) for state in ENDED}


def compute_pruning_savings(study: optuna.Study) -> float | None:
    """Compute the share of optimizer steps that pruning saved.

    Returns:
        Steps that pruned trials did not take, over the steps of all trials without pruning. A failed trial
        counts with the steps that it took. None if no trial recorded its progress.
    """
    without_pruning = saved = 0
    for trial in study.trials:
        progress = get_progress(trial)
        if progress is not None:
            pruned = trial.state == TrialState.PRUNED
            without_pruning += progress.planned_optimizer_steps if pruned else progress.optimizer_steps
            saved += progress.planned_optimizer_steps - progress.optimizer_steps if pruned else 0
    return saved / without_pruning if without_pruning else None


def build_search_metrics(study: optuna.Study) -> dict[str, float]:
    """Return the metrics of the search's MLflow run: counts by state, compute saved, wall and CPU time.

    The times are sums over the trials; with several workers the search itself takes less wall time.
    """
    metrics: dict[str, float] = {
        f"trials_{name}": count for name, count in count_trials_by_state(study).items()
    }
    if (saved := compute_pruning_savings(study)) is not None:
        metrics["compute_saved"] = saved
    return {**metrics, **_times(study.trials)}


def get_tuning_auc(trial: FrozenTrial) -> float | None:
    """Return the AUC of a finished trial on the tuning fold; None if the trial did not finish."""
    return trial.value if trial.state == TrialState.COMPLETE else None


def get_last_intermediate_auc(trial: FrozenTrial) -> float | None:
    """Return the last intermediate evaluation of a trial that did not finish; None if there is none."""
    values = trial.intermediate_values
    return values[max(values)] if values and trial.state != TrialState.COMPLETE else None


def _times(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    recorded = {
        name: [trial.user_attrs[name] for trial in trials if name in trial.user_attrs]
        for name in (WALL_SECONDS, CPU_SECONDS)
    }
    return {name: float(sum(seconds)) for name, seconds in recorded.items() if seconds}


def _rounded(value: float) -> float:
    return round(value, DECIMALS)


@dataclass(frozen=True)
class Winner:
    """The finished trial that won.

    Attributes:
        number: of the trial.
        model: its model.
        origin: what the model was trained from.
        validation_auc: on the whole validation split.
        gain: in validation AUC over trial 0; None if trial 0 did not finish.
        holdout_results: the best trials on the holdout fold, the winner first; empty without a holdout fold.
        run: MLflow run of the trial.
    """

    number: int
    model: SentimentClassifier
    origin: Origin
    validation_auc: float
    gain: Gain | None
    holdout_results: list[HoldoutResult]
    run: Run


def find_winner(search: Search, parent: Run) -> Winner:
    """Choose the winner among the finished trials, of which there must be one.

    It is the best trial on the holdout fold; without one, the trial with the highest tuning AUC, and of equal
    ones the earliest.

    Args:
        search: the search.
        parent: MLflow run of the search.
    """
    trials = search.load_trials()
    best = rank_trials(trials)
    results = _evaluate_on_holdout(search, best, parent)
    trial = trials[results[0].trial] if results else best[0]
    retained, labels = load_or_retrain(search, trial), search.reviews.validation.labels
    logits = {0: read_validation_logits(search, 0), trial.number: retained.logits}
    gain = compute_gain_over_trial_0(search.load_results(), trial.number, labels, logits)
    params = apply_values(search.params, trial.params)
    origin = build_origin(params, search.reviews, search.name, trial.number)
    run = find_trial_run(parent, trial.number)
    if run is None:  # the tracking store has changed since the trial ended
        with open_trial_run(parent, search, trial.number) as run:
            log_configuration(run, params, search.reviews, origin)
    auc = float(roc_auc_score(labels, retained.logits))
    return Winner(trial.number, retained.model, origin, auc, gain, results, run)


def _evaluate_on_holdout(search: Search, best: list[FrozenTrial], parent: Run) -> list[HoldoutResult]:
    holdout = search.params.tune.active_holdout
    if holdout is None:
        return []
    logits = {trial.number: _get_logits(search, trial) for trial in best[: holdout.trials]}
    results = rank_on_holdout(logits, search.reviews.validation.labels, holdout)
    for result in results:
        if run := find_trial_run(parent, result.trial):
            run.log_metrics({"holdout_auc": result.holdout_auc})
    return results


def _get_logits(search: Search, trial: FrozenTrial) -> NDArray[np.float32]:
    logits = read_validation_logits(search, trial.number)
    return load_or_retrain(search, trial).logits if logits is None else logits
