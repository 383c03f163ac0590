"""Samplers, and the trials that a search starts with."""

import itertools
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.tuning.sampling import count_trials, draw_trial, list_starting_values
from sentiment.tuning.trial_params import get_starting_values
from tests.tuning.sampling_studies import GP, RANDOM, SPACE, TPE, end_trial, numbered, simulate, tune_params


def _auc(params: Params) -> float:
    """Replaces a training: the optimum is inside the search space."""
    return 1 - (params.train.optimizer.learning_rate - 0.01) ** 2 - (params.model.dropout.head - 0.3) ** 2


def _drawn(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    return [trial.params for trial in trials]


@pytest.mark.parametrize("max_parallel", [1, 3])
@pytest.mark.parametrize("sampler", [TPE, GP, RANDOM])
def test_values_depend_neither_on_workers_nor_on_their_speed(
    sampler: dict[str, Any], max_parallel: int
) -> None:
    params = tune_params(sampler=sampler, max_parallel=max_parallel)
    one_worker = _drawn(simulate(params, _auc, 8))
    assert len({tuple(values.items()) for values in one_worker}) == 8, "the test needs trials that differ"
    for speed in range(1 if sampler["kind"] == "gp" else 4):  # a draw from a Gaussian process is slow
        assert _drawn(simulate(params, _auc, 8, workers=max_parallel, speed=speed)) == one_worker


@pytest.mark.parametrize("sampler", [TPE, GP])
def test_later_results_do_not_change_a_draw(sampler: dict[str, Any]) -> None:
    params = tune_params(sampler=sampler, max_parallel=3)
    trials = simulate(params, _auc, 10)
    drawn = draw_trial(params, trials, [])
    for number in (8, 9):  # trial 10 is drawn from the results of trials 0 to 7
        trials[number] = end_trial(trials[number], 0.0)
    assert draw_trial(params, trials, []).params == drawn.params
    trials[7] = end_trial(trials[7], 2.0)
    assert draw_trial(params, trials, []).params != drawn.params


@pytest.mark.parametrize("sampler", [TPE, GP])
def test_running_trials_repel_the_next_one(sampler: dict[str, Any]) -> None:
    """Without the constant liar, trials in parallel would be drawn close to each other."""
    space = {"model.dropout.head": SPACE["model.dropout.head"]}
    distances = []
    for max_parallel in (1, 4):
        params = tune_params(sampler=sampler, space=space, max_parallel=max_parallel)
        heads = [trial.params["model.dropout.head"] for trial in simulate(params, _auc, 24)[12:]]
        distances.append(sum(abs(a - b) for a, b in itertools.pairwise(heads)))
    assert distances[1] > distances[0]


def test_trial_is_not_drawn_before_the_results_that_it_needs() -> None:
    params = tune_params(max_parallel=2)
    trials = [numbered(draw_trial(params, [], []), 0)]
    trials.append(numbered(draw_trial(params, trials, []), 1))
    with pytest.raises(ValueError, match="trial 2 needs the results of the first 1 trials"):
        draw_trial(params, trials, [])


@pytest.mark.parametrize("max_parallel", [1, 4])
@pytest.mark.parametrize("sampler", [TPE, GP])
def test_sampler_learns_from_earlier_trials(sampler: dict[str, Any], max_parallel: int) -> None:
    """A sampler that is built anew for each trial must not turn the search into a random one."""
    space = {"model.dropout.head": SPACE["model.dropout.head"]}
    params = tune_params(sampler=sampler, space=space, max_parallel=max_parallel)
    trials = simulate(params, _auc, 50)
    off = [abs(trial.params["model.dropout.head"] - 0.3) for trial in trials[-10:]]
    assert sum(off) / len(off) < 0.12, "at random it would be 0.21"


def test_seed_of_params_changes_the_trials() -> None:
    drawn = [draw_trial(tune_params(sampler={"kind": "random"}, seed=seed), [], []).params for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_first_trials_have_the_starting_values_and_draw_what_these_lack() -> None:
    params = tune_params()
    starting_values = [get_starting_values(params), {"train.clip.threshold": 3.0}]
    first = numbered(draw_trial(params, [], starting_values), 0)
    assert first.params == starting_values[0]
    second = draw_trial(params, [first], starting_values)
    assert set(second.params) == set(first.params) | set(starting_values[1])


def _started(params: Params, storage: BaseStorage | None = None) -> list[dict[str, Any]]:
    return list_starting_values(params, storage or InMemoryStorage())


GRID = {
    "train.optimizer.learning_rate": {
        "kind": "float",
        "low": 1e-3,
        "high": 1e-1,
        "log": True,
        "points": 3,
    },
    "model.layers": {"kind": "int", "low": 1, "high": 3, "points": 2},
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm"]},
    "train.clip.threshold": {"kind": "float", "low": 0.5, "high": 1.5, "points": 3},
}


def test_grid_has_every_combination_once_after_trial_zero() -> None:
    params = tune_params(sampler={"kind": "grid"}, space=GRID)
    start, *points = _started(params)
    assert start == get_starting_values(params)
    assert len(points) == 3 * 2 * (1 + 3)  # no threshold where nothing is clipped
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert {point["model.layers"] for point in points} == {1, 3}
    rates = sorted({point["train.optimizer.learning_rate"] for point in points})
    assert rates == pytest.approx([1e-3, 1e-2, 1e-1])
    assert {point.get("train.clip.threshold") for point in points} == {None, 0.5, 1.0, 1.5}


def test_grid_point_that_is_trial_zero_is_not_tried_again() -> None:
    space = {"model.dropout.head": {"kind": "float", "low": 0.1, "high": 0.3, "points": 3}}  # 0.2 is trial 0
    params = tune_params(sampler={"kind": "grid"}, space=space)
    assert [trial["model.dropout.head"] for trial in _started(params)] == pytest.approx([0.2, 0.1, 0.3])
    assert count_trials(params) == 3


def test_search_ends_after_the_last_grid_point() -> None:
    params = tune_params(sampler={"kind": "grid"}, space=GRID)
    assert count_trials(params) == 25
    assert count_trials(tune_params()) == 30


def test_invalid_combination_in_a_grid_is_reported_before_the_first_trial() -> None:
    space = {"train.optimizer.kind": {"kind": "categorical", "choices": ["adamw", "sgd"]}}
    with pytest.raises(UserError, match=r"train\.optimizer\.kind = 'sgd'.*momentum"):
        _started(tune_params(sampler={"kind": "grid"}, space=space))


@pytest.fixture
def older() -> Callable[..., InMemoryStorage]:
    """Returns a function that creates a storage with an earlier study from its trials' values and AUCs."""

    def make(*trials: tuple[dict[str, Any], float]) -> InMemoryStorage:
        storage = InMemoryStorage()
        study = optuna.create_study(direction="maximize", storage=storage, study_name="tune-old")
        for values, auc in trials:
            study.enqueue_trial(values)
            trial = study.ask()
            for name, value in values.items():
                if isinstance(value, str):
                    trial.suggest_categorical(name, ["none", "norm", "value", "percentile"])
                else:
                    trial.suggest_float(name, 0.0, 100.0)
            study.tell(trial, auc)
        study.tell(study.ask(), state=TrialState.FAIL)
        return storage

    return make


WARM = {"study": "tune-old", "trials": 2}


def test_warm_start_uses_the_best_trials_of_an_earlier_study(
    older: Callable[..., InMemoryStorage],
) -> None:
    storage = older(
        *(({"model.dropout.head": head}, auc) for head, auc in ((0.1, 0.7), (0.5, 0.9), (0.4, 0.8)))
    )
    _, *trials = _started(tune_params(warm_start=WARM), storage)
    assert trials == [{"model.dropout.head": 0.5}, {"model.dropout.head": 0.4}]


def test_warm_start_ignores_values_outside_the_space(older: Callable[..., InMemoryStorage]) -> None:
    values = {
        "model.dropout.head": 0.95,  # beyond the range
        "train.ema_decay": 0.5,  # not searched any more
        "train.clip.kind": "percentile",  # no choice any more
        "train.clip.threshold": 3.0,
    }
    _, *trials = _started(tune_params(warm_start=WARM), older((values, 0.9)))
    assert trials == [{"train.clip.threshold": 3.0}]


def test_warm_start_does_not_repeat_trial_zero(older: Callable[..., InMemoryStorage]) -> None:
    space = {"model.dropout.head": SPACE["model.dropout.head"]}
    storage = older(({"model.dropout.head": 0.2}, 0.9), ({"model.dropout.head": 0.3}, 0.8))
    _, *trials = _started(tune_params(warm_start=WARM, space=space), storage)
    assert trials == [{"model.dropout.head": 0.3}]


def test_warm_start_may_have_more_trials_than_the_total(
    older: Callable[..., InMemoryStorage],
) -> None:
    storage = older(({"model.dropout.head": 0.5}, 0.9), ({"model.dropout.head": 0.4}, 0.8))
    params = tune_params(warm_start=WARM, trials=2)
    assert len(_started(params, storage)) == 3
    assert count_trials(params) == 2


@pytest.mark.parametrize(
    ("trials", "name", "message"),
    [
        ([({"model.dropout.head": 0.5}, 0.9)], "tune-odl", "no such study in the storage; it has tune-old"),
        (
            [({"train.ema_decay": 0.5}, 0.9)],
            "tune-old",
            "none of its trials finished with values for tune.space",
        ),
    ],
)
def test_invalid_warm_start_is_reported(
    trials: list[Any], name: str, message: str, older: Callable[..., InMemoryStorage]
) -> None:
    with pytest.raises(UserError, match=rf"tune\.warm_start\.study: {name}: {message}") as raised:
        _started(tune_params(warm_start={"study": name, "trials": 1}), older(*trials))
    assert raised.value.exit_status == 2
