"""Steps that the pruning part of bench.tune counts as saved."""

import pytest
from optuna.trial import TrialState

from bench.tuning.pruning import ReplayedSearch, Trained, replay_search
from sentiment.params import Params, load_params
from sentiment.training.epoch_metrics import IntermediateEvaluation
from tests.project import ROOT


def _params(trials: int) -> Params:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"].update(
        {
            "trials": trials,
            "max_parallel": 1,
            "pruner": {"kind": "median", "startup_trials": 1, "warmup": 0.5},
            "evaluations_per_epoch": 2,
        }
    )
    content["train"]["epochs"] = 2
    return Params.model_validate(content)


def _trained(*aucs: float) -> Trained:
    evaluations = (
        IntermediateEvaluation(n, 10 * n, 40, auc, ends_epoch=n % 2 == 0) for n, auc in enumerate(aucs, 1)
    )
    return Trained(tuple(evaluations), max(aucs))


def _search(*trained: Trained) -> ReplayedSearch:
    remaining = iter(trained)
    return replay_search(_params(len(trained)), lambda _: next(remaining))


def test_steps_not_taken_are_counted() -> None:
    search = _search(_trained(0.7, 0.8, 0.9, 0.9), _trained(0.6, 0.7, 0.8, 0.8))
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert search.saved == pytest.approx(20 / 80)
    assert search.best == search.best_without_pruning == 0.9


def test_late_winner_that_was_pruned_is_counted_as_missed() -> None:
    search = _search(_trained(0.7, 0.8, 0.8, 0.8), _trained(0.6, 0.7, 0.9, 0.95))
    assert (search.best, search.best_without_pruning) == (0.8, 0.95)


def test_nothing_is_saved_where_each_trial_is_better() -> None:
    search = _search(_trained(0.7, 0.8, 0.8, 0.8), _trained(0.8, 0.9, 0.9, 0.9))
    assert (search.saved, search.best) == (0.0, 0.9)


def test_pruned_trials_are_compared_with_later_ones_up_to_their_last_report() -> None:
    search = _search(_trained(0.9, 0.9, 0.9, 0.9), _trained(0.1, 0.1, 0.1, 0.1), _trained(0.6, 0.6, 0.6, 0.6))
    states = [trial.state for trial in search.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [len(trial.intermediate_values) for trial in search.trials] == [4, 2, 3]
