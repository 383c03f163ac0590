"""Searches with the sampler of params.yaml, whose objective is a formula."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, create_trial

from sentiment.params import Params, load_params
from sentiment.tuning.sampling import count_known_results, draw_trial
from sentiment.tuning.trial_params import apply_values, get_starting_values
from tests.project import ROOT

SPACE = {
    "train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.dropout.head": {"kind": "float", "low": 0.0, "high": 0.8},
    "model.hidden_units": {"kind": "int", "low": 8, "high": 64},
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm", "value"]},
    "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 10.0, "log": True},
}
TPE = pytest.param({"kind": "tpe", "startup_trials": 3}, id="tpe")
GP = pytest.param({"kind": "gp", "startup_trials": 3}, id="gp", marks=pytest.mark.slow)  # a second per draw
RANDOM = pytest.param({"kind": "random"}, id="random")
MEDIAN = {"kind": "median", "startup_trials": 1, "warmup": 0.25}


def tune_params(**tune: Any) -> Params:
    """The parameters of params.yaml with another section `tune`."""
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"].update({"space": SPACE, "trials": 30, "pruner": MEDIAN, **tune})
    return Params.model_validate(content)


def simulate(
    params: Params, auc_of: Callable[[Params], float], trials: int, workers: int = 1, speed: int = 0
) -> list[FrozenTrial]:
    """Draw trials as a search does whose workers end theirs in an order that depends on the seed `speed`."""
    rng = random.Random(speed)  # noqa: S311
    study: list[FrozenTrial] = []
    while len(study) < trials or not all(trial.state.is_finished() for trial in study):
        running = [trial for trial in study if not trial.state.is_finished()]
        known = study[: count_known_results(len(study), params.tune.max_parallel)]
        can_draw = len(study) < trials and all(trial.state.is_finished() for trial in known)
        if can_draw and len(running) < workers and (not running or rng.random() < 0.5):
            study.append(numbered(draw_trial(params, study, [get_starting_values(params)]), len(study)))
        else:
            ended = rng.choice(running)
            study[ended.number] = end_trial(ended, auc_of(apply_values(params, ended.params)))
    return study


def numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    """Give a trial the number that a storage would give it, and return it."""
    trial.number = number
    return trial


def end_trial(trial: FrozenTrial, auc: float) -> FrozenTrial:
    """Return a running trial as complete."""
    ended = create_trial(value=auc, params=trial.params, distributions=trial.distributions)
    return numbered(ended, trial.number)
