"""The winning trial, and the search as a table and as metrics."""

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
from sentiment.lineage import log_configuration, origin_of
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
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def compute_gain_over_trial_0(
    study: optuna.Study,
    winner: int,
    labels: NDArray[np.integer],
    logits: Mapping[int, NDArray[np.floating] | None],
) -> Gain | None:
    """Return what a trial gains over trial 0 on the validation reviews; None where trial 0 did not finish.

    labels: shape (reviews,). logits: by trial number, of the same reviews; without those of both trials the
    gain is the difference of their values in the study. The interval, at 95%, is that of two given models: it
    does not know that the winner is the best of many.
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
    study: optuna.Study, winner: int, auc: float, gain: Gain | None = None
) -> dict[str, Any]:
    """Return counts by state, the winner, its gain in AUC over trial 0, and what pruning saved.

    winner: its number. auc: its AUC on all validation reviews. gain: null in the figures where it is None.
    Nothing here depends on the clock.
    """
    best = study.trials[winner]
    saved = compute_pruning_savings(study)
    return {
        "trials": count_trials_by_state(study),
        "best": {
            "trial": best.number,
            "tuning_auc": _rounded(require_tuning_auc(best)),
            "validation_auc": _rounded(auc),
            "params": best.params,
        },
        "gain_over_trial_0": None if gain is None else gain.to_dict(),
        "compute_saved": None if saved is None else _rounded(saved),
    }


def count_trials_by_state(study: optuna.Study) -> dict[str, int]:
    """Return how many trials finished, were pruned and failed."""
    return {STATES[state]: sum(trial.state == state for trial in study.trials) for state in ENDED}


def compute_pruning_savings(study: optuna.Study) -> float | None:
    """Return the share of training steps that pruning spared, of those that all trials would have taken.

    A failed trial counts with the steps it took: pruning had no part in its end. None where no trial said how
    far it got.
    """
    without_pruning = spared = 0
    for trial in study.trials:
        progress = get_progress(trial)
        if progress is not None:
            pruned = trial.state == TrialState.PRUNED
            without_pruning += progress.planned_optimizer_steps if pruned else progress.optimizer_steps
            spared += progress.planned_optimizer_steps - progress.optimizer_steps if pruned else 0
    return spared / without_pruning if without_pruning else None


def build_search_metrics(study: optuna.Study) -> dict[str, float]:
    """Return what the search's own run shows in MLflow: counts by state, compute saved, wall and CPU time.

    The times are sums over the trials: with several workers the search itself was over sooner.
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
    noted = {
        name: [trial.user_attrs[name] for trial in trials if name in trial.user_attrs]
        for name in (WALL_SECONDS, CPU_SECONDS)
    }
    return {name: float(sum(seconds)) for name, seconds in noted.items() if seconds}


def _rounded(value: float) -> float:
    return round(value, DECIMALS)


@dataclass(frozen=True)
class Winner:
    """The finished trial that won.

    validation_auc: on all validation reviews. gain: in that, over trial 0; None where that did not finish.
    confirmed: the best trials on the fold set aside, the winner first; empty where none was.
    """

    number: int
    model: SentimentClassifier
    origin: Origin
    validation_auc: float
    gain: Gain | None
    confirmed: list[HoldoutResult]
    run: Run


def find_winner(search: Search, parent: Run) -> Winner:
    """Return the best of the finished trials, of which there must be one: on the fold set aside, if any is.

    Of several that are equal it is the first.
    """
    trials = search.load_trials()
    best = rank_trials(trials)
    confirmed = _confirmed(search, best)
    trial = trials[confirmed[0].trial] if confirmed else best[0]
    found, labels = load_or_retrain(search, trial), search.reviews.validation.labels
    logits = {0: read_validation_logits(search, 0), trial.number: found.logits}
    gain = compute_gain_over_trial_0(search.load_results(), trial.number, labels, logits)
    params = apply_values(search.params, trial.params)
    origin = origin_of(params, search.reviews, search.name, trial.number)
    run = find_trial_run(parent, trial.number)
    if run is None:  # the tracking store is another than that of the day
        with open_trial_run(parent, search, trial.number) as run:
            log_configuration(run, params, search.reviews, origin)
    auc = float(roc_auc_score(labels, found.logits))
    return Winner(trial.number, found.model, origin, auc, gain, confirmed, run)


def _confirmed(search: Search, best: list[FrozenTrial]) -> list[HoldoutResult]:
    holdout = search.params.tune.active_holdout
    if holdout is None:
        return []
    logits = {trial.number: _logits(search, trial) for trial in best[: holdout.trials]}
    return rank_on_holdout(logits, search.reviews.validation.labels, holdout)


def _logits(search: Search, trial: FrozenTrial) -> NDArray[np.float32]:
    found = read_validation_logits(search, trial.number)
    return load_or_retrain(search, trial).logits if found is None else found
