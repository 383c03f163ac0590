"""Draws that depend on what the study holds, and on nothing else."""

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from sentiment.tuning.strategies import SeededByTrial

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=3),
}
TRIALS = 8

Values = dict[str, float | str]


def _study(
    make: Callable[[int], BaseSampler], storage: optuna.storages.BaseStorage | None = None
) -> optuna.Study:
    sampler = SeededByTrial(make, seed=7)
    return optuna.create_study(
        sampler=sampler, storage=storage, study_name="s", direction="maximize", load_if_exists=True
    )


def _draw(trial: optuna.Trial) -> Values:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    values: Values = {"kind": kind, "x": trial.suggest_float("x", 0, 1)}
    if kind == "a":  # drawn by itself: not every trial has it
        values["y"] = trial.suggest_float("y", 0, 1)
    return values


def _run(study: optuna.Study, trials: int) -> list[Values]:
    drawn = []
    for _ in range(trials):
        trial = study.ask()
        drawn.append(_draw(trial))
        study.tell(trial, float(drawn[-1]["x"]))
    return drawn


@pytest.mark.parametrize("kind", SAMPLERS)
def test_search_that_stops_after_each_trial_draws_as_one_that_does_not(kind: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    stopped = [_run(_study(SAMPLERS[kind], storage), 1)[0] for _ in range(TRIALS)]
    assert stopped == _run(_study(SAMPLERS[kind]), TRIALS)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("drawn_before", [[], ["kind"], ["kind", "x"]])
def test_trial_killed_between_two_draws_draws_the_same_rest(kind: str, drawn_before: list[str]) -> None:
    straight = _run(_study(SAMPLERS[kind]), TRIALS)
    storage = optuna.storages.InMemoryStorage()
    study = _study(SAMPLERS[kind], storage)
    _run(study, TRIALS - 1)
    killed = study.ask()
    if "kind" in drawn_before:
        killed.suggest_categorical("kind", ["a", "b"])
    if "x" in drawn_before:
        killed.suggest_float("x", 0, 1)
    resumed = optuna.Trial(_study(SAMPLERS[kind], storage), killed._trial_id)
    assert _draw(resumed) == straight[-1]


def test_trials_and_parameters_draw_differently() -> None:
    drawn = _run(_study(SAMPLERS["random"]), TRIALS)
    assert len({values["x"] for values in drawn}) == TRIALS
    assert all(values["x"] != values.get("y") for values in drawn)


def test_another_seed_draws_differently() -> None:
    one, other = (SeededByTrial(SAMPLERS["random"], seed=seed) for seed in (1, 2))
    first, second = (_run(optuna.create_study(sampler=sampler), 3) for sampler in (one, other))
    assert first != second
