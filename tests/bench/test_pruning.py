"""Steps that the pruning part of bench.tune counts as saved."""

import pytest

from bench.tuning.pruning import Trained, replay
from sentiment.params import Params, load_params
from sentiment.training.epoch_metrics import IntermediateEvaluation
from tests.project import ROOT


def _params() -> Params:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"].update(
        {"pruner": {"kind": "median", "startup_trials": 1, "warmup": 0.5}, "evaluations_per_epoch": 2}
    )
    content["train"]["epochs"] = 2
    return Params.model_validate(content)


def _trained(*aucs: float) -> Trained:
    checks = (
        IntermediateEvaluation(n, 10 * n, 40, auc, ends_epoch=n % 2 == 0) for n, auc in enumerate(aucs, 1)
    )
    return Trained(tuple(checks), max(aucs))


def test_steps_not_taken_are_counted() -> None:
    pruned = replay(_params(), [_trained(0.7, 0.8, 0.9, 0.9), _trained(0.6, 0.7, 0.8, 0.8)])
    assert pruned.pruned_trials == 1
    assert pruned.saved == pytest.approx(20 / 80)
    assert pruned.best == 0.9


def test_late_winner_that_was_pruned_is_counted_as_missed() -> None:
    pruned = replay(_params(), [_trained(0.7, 0.8, 0.8, 0.8), _trained(0.6, 0.7, 0.9, 0.95)])
    assert pruned.best == 0.8


def test_nothing_is_saved_where_each_trial_is_better() -> None:
    pruned = replay(_params(), [_trained(0.7, 0.8, 0.8, 0.8), _trained(0.8, 0.9, 0.9, 0.9)])
    assert (pruned.pruned_trials, pruned.saved, pruned.best) == (0, 0.0, 0.9)
