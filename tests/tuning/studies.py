"""Small searches whose objective is a formula: real studies, no training."""

import math
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sentiment.params import Params, load_params
from sentiment.tuning.trial_params import (
    CPU_SECONDS,
    ERROR,
    WALL_SECONDS,
    Progress,
    get_starting_values,
    suggest_params,
)
from tests.project import ROOT

STEPS = 10
"""Of an epoch."""

FAILED = 4
"""Number of the trial that fails."""

SPACE: dict[str, Any] = {
    "train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.layers": {"kind": "int", "low": 1, "high": 3},
    "model.head.activation": {"kind": "categorical", "choices": ["relu", "tanh"]},
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm", "percentile"]},
    "train.clip.threshold": {"kind": "float", "low": 0.25, "high": 4.0, "log": True},
    "train.clip.percentile": {"kind": "float", "low": 5.0, "high": 100.0},
}


def searched_params(space: dict[str, Any] = SPACE) -> Params:
    """The configuration of params.yaml with another search space."""
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"]["space"] = space
    content["train"]["clip"] = {"kind": "norm", "threshold": 0.5}
    content["train"]["optimizer"]["learning_rate"] = 5e-3
    return Params.model_validate(content)


def auc_after(params: Params, epoch: int) -> float:
    """Only the learning rate matters, 0.005 is best, and more epochs are better."""
    away = abs(math.log10(params.train.optimizer.learning_rate / 5e-3))
    return 0.96 - 0.05 * away - 0.03 / epoch


def searched(
    trials: int = 16, storage: BaseStorage | None = None, space: dict[str, Any] = SPACE
) -> optuna.Study:
    """A search with three epochs per trial; one trial fails, those with a low AUC are pruned."""
    params = searched_params(space)
    study = optuna.create_study(
        direction="maximize",
        study_name="tune-example",
        storage=storage,
        sampler=TPESampler(seed=1, n_startup_trials=6),
        pruner=MedianPruner(n_startup_trials=3),
    )
    study.enqueue_trial(get_starting_values(params))
    for number in range(trials):
        trial = study.ask()
        suggested = suggest_params(trial, params)
        if number == FAILED:
            trial.set_user_attr(ERROR, "TrainingDivergedError: the loss is nan\nno step was taken")
            _record(trial, Progress(optimizer_steps=3, planned_optimizer_steps=3 * STEPS))
            study.tell(trial, state=TrialState.FAIL)
        else:
            _run(study, trial, suggested)
    return study


def _record(trial: optuna.Trial, progress: Progress) -> None:
    for name, value in progress.to_user_attrs().items():
        trial.set_user_attr(name, value)


def _run(study: optuna.Study, trial: optuna.Trial, params: Params) -> None:
    for epoch in (1, 2, 3):
        trial.report(auc_after(params, epoch), epoch)
        _record(trial, Progress(epoch * STEPS, 3 * STEPS))
        trial.set_user_attr(WALL_SECONDS, 2.0 * epoch)
        trial.set_user_attr(CPU_SECONDS, 3.0 * epoch)
        if epoch < 3 and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, auc_after(params, 3))
