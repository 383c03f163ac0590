"""Samplers, and the trials that a search starts with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import Trial, TrialState

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.tuning.sampling import (
    build_sampler,
    count_trials,
    list_starting_trials,
)
from sentiment.tuning.trial_params import get_starting_values, suggest_params
from tests.tuning.sampling_studies import SAMPLERS, SPACE, open_study, tune_params


def _auc(params: Params) -> float:
    """Replaces a training: the optimum is inside the search space."""
    return 1 - (params.train.optimizer.learning_rate - 0.01) ** 2 - (params.model.dropout.head - 0.3) ** 2


def _run(study: optuna.Study, params: Params, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, _auc(suggest_params(trial, params)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_values_do_not_depend_on_restarts_of_the_process(sampler: dict[str, Any], tmp_path: Path) -> None:
    params = tune_params(sampler=sampler)
    drawn = []
    for name, lives in (("straight", [8]), ("interrupted", [1, 2, 4, 1])):
        (tmp_path / name).mkdir()
        for trials in lives:
            _run(open_study(tmp_path / name, params), params, trials)
        drawn.append([trial.params for trial in open_study(tmp_path / name, params).trials])
    assert drawn[0] == drawn[1]
    assert len({tuple(trial.items()) for trial in drawn[0]}) == 8, "the test needs trials that differ"


@pytest.mark.parametrize("suggested", range(4))
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_trial_killed_between_two_draws_gets_the_values_it_would_have_had(
    sampler: dict[str, Any], suggested: int, tmp_path: Path
) -> None:
    params = tune_params(sampler=sampler, space={name: SPACE[name] for name in list(SPACE)[:3]})
    study = open_study(tmp_path, params)
    _run(study, params, 6)
    killed = study.ask()

    class KilledError(Exception):
        pass

    class Counting(Trial):
        """Raises after some draws, like a process that is killed."""

        left = suggested

        def _suggest(self, *arguments: Any) -> Any:
            if not self.left:
                raise KilledError
            self.left -= 1
            return super()._suggest(*arguments)

    killed.__class__ = Counting
    if suggested < 3:
        with pytest.raises(KilledError):
            suggest_params(killed, params)
    else:
        suggest_params(killed, params)
    again = open_study(tmp_path, params)
    resumed = Trial(again, killed._trial_id)
    suggest_params(resumed, params)
    (tmp_path / "whole").mkdir()
    whole = open_study(tmp_path / "whole", params)
    _run(whole, params, 7)
    assert resumed.params == whole.trials[6].params


@pytest.mark.parametrize("sampler", [SAMPLERS[0], SAMPLERS[2]], ids=lambda sampler: sampler["kind"])
def test_sampler_learns_from_earlier_trials(sampler: dict[str, Any]) -> None:
    """A wrapper that builds a sampler for each draw must not turn it into a random search."""
    params = tune_params(sampler=sampler, space={"model.dropout.head": SPACE["model.dropout.head"]})
    study = optuna.create_study(direction="maximize", sampler=build_sampler(params.tune))
    _run(study, params, 50)
    off = [abs(trial.params["model.dropout.head"] - 0.3) for trial in study.trials[-10:]]
    assert sum(off) / len(off) < 0.12, "at random it would be 0.21"


def test_resumed_trial_uses_trials_that_finished_meanwhile(tmp_path: Path) -> None:
    """The process that resumes it has asked for a trial of its own before that."""
    params = tune_params(sampler=SAMPLERS[0])
    early = open_study(tmp_path, params)
    _run(early, params, 2)
    suggest_params(early.ask(), params)  # looks at two finished trials, too few for TPE, and remembers them
    other = open_study(tmp_path, params)
    _run(other, params, 4)
    left = other.ask()
    drawn = [Trial(study, left._trial_id).relative_params for study in (early, other)]
    assert drawn[0] == drawn[1] != {}


def test_seed_of_params_changes_the_trials() -> None:
    drawn = []
    for seed in (1, 2):
        params = tune_params(sampler={"kind": "random"}, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=build_sampler(params.tune))
        _run(study, params, 1)
        drawn.append(study.trials[0].params)
    assert drawn[0] != drawn[1]


def _started(params: Params, storage: BaseStorage | None = None) -> list[dict[str, Any]]:
    return list_starting_trials(params, storage or InMemoryStorage())


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


def test_warm_start_may_enqueue_more_trials_than_the_total(
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
