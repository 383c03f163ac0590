"""Pruners: which trials they prune, and that a decision can be repeated."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.trial import Trial, TrialState

from sentiment.params import Params
from sentiment.tuning.sampling import CrashSafeHyperbandPruner, build_pruner
from tests.tuning.sampling_studies import MEDIAN, open_study, tune_params


def _ended_after(params: Params, curves: list[list[float]]) -> list[int]:
    """Return the number of evaluations after which each trial ended; the last evaluation prunes no trial."""
    return _run_curves(build_pruner(params), curves, prunes_at_end=False)


def _run_curves(pruner: BasePruner, curves: list[list[float]], *, prunes_at_end: bool) -> list[int]:
    """Report one curve per trial, one trial after the other; return how many evaluations each trial had."""
    study = optuna.create_study(direction="maximize", study_name="search", pruner=pruner)
    ended = []
    for curve in curves:
        trial = study.ask()
        for step, auc in enumerate(curve, 1):
            trial.report(auc, step)
            if (prunes_at_end or step < len(curve)) and trial.should_prune():
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


@pytest.mark.parametrize(
    "pruner", [MEDIAN, {"kind": "hyperband", "reduction_factor": 2, "min_resource": 1}], ids=str
)
def test_pruning_decision_is_repeated_after_a_kill(pruner: dict[str, Any], tmp_path: Path) -> None:
    params = tune_params(pruner=pruner)
    decisions = []
    for number in range(8):
        study = open_study(tmp_path, params)
        trial = study.ask()
        for step in range(1, 13):
            trial.report(0.5 + 0.01 * step + 0.1 * (number % 3), step)
            decision = trial.should_prune()
            resumed = Trial(open_study(tmp_path, params), trial._trial_id)
            assert resumed.should_prune() == decision, (number, step)
            decisions.append(decision)
            if decision:
                break
        study.tell(trial, state=TrialState.PRUNED) if decision else study.tell(trial, 0.9)
    assert len(set(decisions)) == 2, "the test needs trials that are pruned"


@pytest.mark.parametrize(("least", "most", "factor"), [(1, 12, 2), (2, 12, 3), (1, 27, 3), (3, 12, 2)])
def test_hyperband_decides_as_the_pruner_of_optuna(least: int, most: int, factor: int) -> None:
    rng = np.random.default_rng(0)
    curves = np.round(rng.uniform(0.5, 0.9, (40, 1)) + rng.normal(0, 0.05, (40, most)), 2).tolist()
    ended = _run_curves(CrashSafeHyperbandPruner(least, most, factor), curves, prunes_at_end=True)
    reference = HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=factor)
    assert ended == _run_curves(reference, curves, prunes_at_end=True)
    assert len(set(ended)) > 1


def test_warm_up_counts_evaluations_of_the_longest_training() -> None:
    params = tune_params(
        pruner={"kind": "median", "startup_trials": 1, "warmup": 0.5},
        evaluations_per_epoch=2,
        space={"train.epochs": {"kind": "int", "low": 1, "high": 4}},
    )
    assert _ended_after(params, [GOOD, BAD])[1] == 4
