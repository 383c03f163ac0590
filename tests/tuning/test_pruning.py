"""Pruners: which trials they prune, and that their decisions depend on nothing but the trials' reports."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.pruners import HyperbandPruner as OptunaHyperbandPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from sentiment.params import Params
from sentiment.tuning.pruning import STUDY_NAME, HyperbandPruner, build_pruner, decide_pruning, find_pending
from tests.tuning.sampling_studies import MEDIAN, numbered, tune_params

HYPERBAND = {"kind": "hyperband", "reduction_factor": 2, "min_resource": 1}


def _ended_after(params: Params, curves: list[list[float]]) -> list[int]:
    """Return the number of evaluations after which each trial ended; the last evaluation prunes no trial."""
    return [
        len(trial.intermediate_values) for trial in _replay(build_pruner(params), curves, len(curves[0]) - 1)
    ]


def _replay(pruner: BasePruner, curves: list[list[float]], last_decision: int) -> list[FrozenTrial]:
    """Replay the curves one trial after the other; decide after each evaluation up to `last_decision`."""
    trials: list[FrozenTrial] = []
    for number, curve in enumerate(curves):
        for step in range(1, len(curve) + 1):
            running = _trial(number, curve[:step])
            if step <= last_decision and decide_pruning(pruner, [*trials, running], number):
                trials.append(_trial(number, curve[:step], TrialState.PRUNED))
                break
        else:
            trials.append(_trial(number, curve, TrialState.COMPLETE))
    return trials


def _trial(number: int, curve: list[float], state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    value = curve[-1] if state == TrialState.COMPLETE else None
    return numbered(
        create_trial(state=state, value=value, intermediate_values=dict(enumerate(curve, 1))), number
    )


def _run_optuna(pruner: BasePruner, curves: list[list[float]]) -> list[int]:
    """Report the curves to a pruner of Optuna, one trial after the other; return how often each reported."""
    study = optuna.create_study(direction="maximize", study_name=STUDY_NAME, pruner=pruner)
    ended = []
    for curve in curves:
        trial = study.ask()
        for step, auc in enumerate(curve, 1):
            trial.report(auc, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[-1])
        ended.append(step)
    return ended


GOOD, BAD = [0.8] * 8, [0.6] * 8


@pytest.mark.parametrize(
    ("pruner", "ended"),
    [
        ({"kind": "none"}, [8, 8, 8]),
        ({"kind": "median", "startup_trials": 1, "warmup": 0.0}, [8, 1, 1]),
        ({"kind": "median", "startup_trials": 1, "warmup": 0.25}, [8, 2, 2]),
        ({"kind": "median", "startup_trials": 1, "warmup": 0.3}, [8, 3, 3]),
        ({"kind": "median", "startup_trials": 2, "warmup": 0.0}, [8, 8, 1]),
        ({"kind": "hyperband", "reduction_factor": 2, "min_resource": 8}, [8, 8, 8]),
    ],
    ids=str,
)
def test_pruner_prunes_trials_with_low_auc(pruner: dict[str, Any], ended: list[int]) -> None:
    params = tune_params(pruner=pruner, evaluations_per_epoch=4)
    params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": 2})})
    assert _ended_after(params, [GOOD, BAD, BAD]) == ended


def test_hyperband_prunes_at_powers_of_its_reduction_factor() -> None:
    params = tune_params(pruner={"kind": "hyperband", "reduction_factor": 2, "min_resource": 1})
    ended = _ended_after(params, [GOOD, *[BAD] * 12])  # 12 checks: 3 epochs of 4
    assert ended[0] == 8
    assert set(ended[1:]) <= {1, 2, 4, 8}
    assert len(set(ended[1:])) > 1, "the test needs more than one bracket"


@pytest.mark.parametrize("pruner", [MEDIAN, HYPERBAND], ids=str)
def test_decisions_depend_neither_on_the_speed_of_trials_nor_on_kills(pruner: dict[str, Any]) -> None:
    """Trials advance in a random order; a trial whose decision is open waits."""
    built = build_pruner(tune_params(pruner=pruner))
    rng = np.random.default_rng(1)
    curves = (np.linspace(0.7, 0.8, 12) + rng.normal(0, 0.03, (8, 1)) + rng.normal(0, 0.01, (8, 12))).tolist()
    expected = [len(trial.intermediate_values) for trial in _replay(built, curves, last_decision=11)]
    assert len(set(expected)) > 2, "the test needs trials that are pruned"
    waited = 0
    for _ in range(20):
        trials = [_trial(number, []) for number in range(8)]
        while running := [trial for trial in trials if not trial.state.is_finished()]:
            trial = running[rng.integers(len(running))]
            reports = len(trial.intermediate_values)
            decision = decide_pruning(built, trials, trial.number) if 0 < reports < 12 else False
            curve = curves[trial.number]
            waited += decision is None
            if decision:
                trials[trial.number] = _trial(trial.number, curve[:reports], TrialState.PRUNED)
            elif reports == 12:
                trials[trial.number] = _trial(trial.number, curve, TrialState.COMPLETE)
            elif decision is False:
                trials[trial.number] = _trial(trial.number, curve[: reports + 1])
        assert [len(trial.intermediate_values) for trial in trials] == expected
    assert waited > 0, "the test needs trials that wait"


def test_decision_that_a_pending_report_cannot_change_is_made_at_once() -> None:
    pruner = build_pruner(tune_params(pruner={"kind": "median", "startup_trials": 1, "warmup": 0.0}))
    ahead = [_trial(number, [auc, auc]) for number, auc in enumerate((0.7, 0.71, 0.72, 0.73))]
    behind = _trial(4, [0.9])
    for auc, expected in ((0.6, True), (0.8, False), (0.715, None)):
        trial = _trial(5, [auc, auc])
        assert decide_pruning(pruner, [*ahead, behind, trial], 5) is expected, auc
        assert find_pending([*ahead, behind, trial], 5) == [4]


def test_first_comparison_waits() -> None:
    """Before enough trials have reached an evaluation, the pending one may be the last that is needed."""
    pruner = build_pruner(tune_params(pruner={"kind": "median", "startup_trials": 1, "warmup": 0.0}))
    assert decide_pruning(pruner, [_trial(0, []), _trial(1, [0.5])], 1) is None
    assert decide_pruning(pruner, [_trial(0, [0.6]), _trial(1, [0.5])], 1) is True
    assert decide_pruning(pruner, [_trial(0, [], TrialState.FAIL), _trial(1, [0.5])], 1) is False


@pytest.mark.parametrize(("least", "most", "factor"), [(1, 12, 2), (2, 12, 3), (1, 27, 3), (3, 12, 2)])
def test_hyperband_decides_as_the_pruner_of_optuna(least: int, most: int, factor: int) -> None:
    rng = np.random.default_rng(0)
    curves = np.round(rng.uniform(0.5, 0.9, (40, 1)) + rng.normal(0, 0.05, (40, most)), 2).tolist()
    trials = _replay(HyperbandPruner(least, most, factor), curves, last_decision=most)
    ended = [len(trial.intermediate_values) for trial in trials]
    reference = OptunaHyperbandPruner(min_resource=least, max_resource=most, reduction_factor=factor)
    assert ended == _run_optuna(reference, curves)
    assert len(set(ended)) > 1


def test_warm_up_counts_evaluations_of_the_longest_training() -> None:
    params = tune_params(
        pruner={"kind": "median", "startup_trials": 1, "warmup": 0.5},
        evaluations_per_epoch=2,
        space={"train.epochs": {"kind": "int", "low": 1, "high": 4}},
    )
    assert _ended_after(params, [GOOD, BAD])[1] == 4
