"""The surrogate of trials, searches on it, and the replay of pruning rules."""

from typing import Any

import numpy as np
import pytest

from bench.tuning.parallel import SimulatedSearch, change_tune, simulate
from bench.tuning.pruning import Trained
from bench.tuning.pruning_rules import Rule, replay
from bench.tuning.record import load_recorded_params
from bench.tuning.surrogate import Surrogate
from sentiment.params import Params
from sentiment.training.epoch_metrics import IntermediateEvaluation
from sentiment.tuning.trial_params import get_starting_values

STARTUP_TRIALS = 3
TPE = {"kind": "tpe", "startup_trials": STARTUP_TRIALS}


@pytest.fixture(scope="module")
def params() -> Params:
    return change_tune(load_recorded_params(), trials=6, max_parallel=2, sampler=TPE)


@pytest.fixture(scope="module")
def surrogate(params: Params) -> Surrogate:
    return Surrogate.load(params)


def test_equal_values_and_seed_give_equal_curves(params: Params, surrogate: Surrogate) -> None:
    values = get_starting_values(params)
    reordered = dict(reversed(values.items()))
    fitted_again = Surrogate.load(params)
    assert surrogate.train(values, seed=1) == fitted_again.train(reordered, seed=1)
    assert surrogate.predict(values) == fitted_again.predict(values)


def test_chance_differs_between_seeds_around_the_mean(params: Params, surrogate: Surrogate) -> None:
    values = get_starting_values(params)
    aucs = [surrogate.train(values, seed).auc for seed in range(300)]
    assert np.mean(aucs) == pytest.approx(surrogate.predict(values).auc, abs=3e-4)
    assert np.std(aucs) == pytest.approx(surrogate.fidelity.error, rel=0.3)


def test_without_chance_a_training_has_the_mean_curve(params: Params) -> None:
    values = get_starting_values(params)
    undisturbed = Surrogate.load(params, chance=0)
    assert undisturbed.train(values, seed=1) == undisturbed.predict(values)


def test_unseen_trials_are_predicted_better_than_by_the_mean(surrogate: Surrogate) -> None:
    assert surrogate.fidelity.r2 > 0.2
    assert surrogate.fidelity.rank_correlation > 0.4


def test_simulated_search_is_deterministic(params: Params, surrogate: Surrogate) -> None:
    one, other = (simulate(params, surrogate) for _ in range(2))
    assert one.replayed.trained == other.replayed.trained
    assert _list_outcomes(one) == _list_outcomes(other)


def test_parallel_trials_change_the_draws_after_the_random_ones(params: Params, surrogate: Surrogate) -> None:
    one, other = (
        [trial.params for trial in simulate(change_tune(params, max_parallel=k), surrogate).replayed.trials]
        for k in (1, 3)
    )
    assert one[:STARTUP_TRIALS] == other[:STARTUP_TRIALS]
    assert one != other


@pytest.mark.parametrize("startup_trials", [1, 2])
def test_replayed_median_rule_decides_as_the_pruner(
    params: Params, surrogate: Surrogate, startup_trials: int
) -> None:
    pruner = {"kind": "median", "startup_trials": startup_trials, "warmup": 0.15}
    random = change_tune(params, trials=12, sampler={"kind": "random"}, pruner=pruner)
    search = simulate(random, surrogate).replayed
    replayed = replay(search.trained, Rule(0.5, 0.15, startup_trials))
    assert 0 < replayed.saved == pytest.approx(search.saved)
    assert replayed.lost == pytest.approx(search.best_without_pruning - search.best)


def test_trial_below_the_quantile_of_earlier_reports_is_pruned() -> None:
    good, poor = _trained(0.6, 0.8, 0.9, 0.9), _trained(0.6, 0.7, 0.95, 0.95)
    replayed = replay([good, poor], Rule(0.5, 0.5, 1))
    assert (replayed.saved, replayed.lost) == (0.25, pytest.approx(0.05))
    assert replay([good, poor], Rule(0.5, 0.5, 2)).saved == 0
    assert replay([good, good], Rule(0.5, 0.5, 1)).saved == 0


def _list_outcomes(search: SimulatedSearch) -> list[Any]:
    return [(trial.params, trial.state, trial.value) for trial in search.replayed.trials]


def _trained(*aucs: float) -> Trained:
    evaluations = (
        IntermediateEvaluation(index, index, len(aucs), auc, ends_epoch=False)
        for index, auc in enumerate(aucs, 1)
    )
    return Trained(tuple(evaluations), max(aucs))
