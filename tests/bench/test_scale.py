"""The simulation of searches with many workers."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.scale.driver_costs import DriverCosts, Linear
from bench.scale.simulation import EVALUATIONS, decide_by_median, read_startup_trials, simulate
from bench.scale.tuning import compute_seconds_per_trial
from sentiment.params import load_params
from sentiment.tuning.pruning import build_pruner, decide_pruning

NOTHING = Linear(0.0, 0.0)
FREE = DriverCosts(NOTHING, NOTHING, NOTHING, write=0.0, track=0.0)


def test_simulated_prunings_are_those_of_the_search() -> None:
    pruner = build_pruner(load_params())
    rng = np.random.default_rng(0)
    decisions = []
    for _ in range(100):
        count = int(rng.integers(1, 9))
        last = int(rng.integers(1, EVALUATIONS))
        made = rng.integers(0, EVALUATIONS + 1, count)  # reports that each trial has made
        made[-1] = last
        reports = np.full((count, EVALUATIONS + 1), np.nan)
        trials: list[FrozenTrial] = []
        ended = rng.random(count - 1) < 0.5
        for number in range(count):
            values = {index: float(rng.integers(80, 95)) / 100 for index in range(1, int(made[number]) + 1)}
            for index, value in values.items():
                reports[number, index] = value
            state = TrialState.PRUNED if number < count - 1 and ended[number] else TrialState.RUNNING
            trial = create_trial(state=state, value=None, intermediate_values=values)
            trial.number = number
            trials.append(trial)
        decision = decide_by_median(reports, ended, last, read_startup_trials())
        assert decision == decide_pruning(pruner, trials, count - 1)
        decisions.append(decision)
    assert {True, False, None} == set(decisions)
    assert read_startup_trials() > 0


def test_one_worker_trains_all_the_time() -> None:
    outcome = simulate(workers=1, max_parallel=1, trial_count=5, costs=FREE)
    assert outcome.utilisation == pytest.approx(1)
    assert outcome.waiting == 0


def test_slow_store_limits_many_workers() -> None:
    slow = DriverCosts(NOTHING, NOTHING, NOTHING, write=0.0, track=5.0)
    outcome = simulate(workers=32, max_parallel=64, trial_count=64, costs=slow)
    assert outcome.limit == "MLflow store"
    assert outcome.utilisation < simulate(32, 64, 64, FREE).utilisation


@pytest.mark.parametrize("delay", [0, 2])
def test_time_per_trial_does_not_depend_on_whether_places_start_together(delay: float) -> None:
    """Two places, whose first trials take 9 s, and the later ones 4 s."""
    ends = [*np.arange(9, 22, 4), *(np.arange(9, 22, 4) + delay)]
    times = [datetime(2026, 1, 1) + timedelta(seconds=float(end)) for end in ends]
    assert compute_seconds_per_trial(times, 2) == 4
    assert compute_seconds_per_trial(times[:4], 1) == 4
