"""A search as a table and as metrics."""

import json
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from sentiment.intervals import Gain, Interval
from sentiment.tuning.trial_params import rank_trials
from sentiment.tuning.winner import (
    build_search_metrics,
    build_trials_table,
    compute_pruning_savings,
    summarize_search,
)
from tests.tuning.studies import FAILED, STEPS, searched


def _summary(study: optuna.Study, gain: Gain | None = None) -> dict[str, Any]:
    return summarize_search(study, study.best_trial.number, gain)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return searched()


def _numbers(study: optuna.Study, state: TrialState) -> list[int]:
    return [trial.number for trial in study.trials if trial.state == state]


def test_table_has_state_aucs_steps_and_parameters_of_every_trial(study: optuna.Study) -> None:
    table = build_trials_table(study).set_index("trial")
    assert list(table.index) == list(range(16))
    for name, state in (("finished", TrialState.COMPLETE), ("pruned", TrialState.PRUNED)):
        assert _numbers(study, state) == list(table.index[table["state"] == name])
    pruned = study.trials[_numbers(study, TrialState.PRUNED)[0]]
    row = table.loc[pruned.number]
    assert row["intermediate_auc"] == list(pruned.intermediate_values.values())[-1]
    assert np.isnan(row["validation_auc"])
    assert row["optimizer_steps"] == len(pruned.intermediate_values) * STEPS
    assert row["optimizer_steps"] < row["planned_optimizer_steps"] == 3 * STEPS
    finished = table.loc[study.best_trial.number]
    assert finished["validation_auc"] == study.best_value
    assert np.isnan(finished["intermediate_auc"])
    assert row["train.optimizer.learning_rate"] == pruned.params["train.optimizer.learning_rate"]


def test_error_of_a_failed_trial_is_one_line(study: optuna.Study) -> None:
    errors = build_trials_table(study)["error"]
    assert errors[FAILED] == "TrainingDivergedError: the loss is nan no step was taken"
    assert errors.drop(FAILED).isna().all()


def test_best_validation_auc_is_monotonic_and_ends_at_the_best_value(study: optuna.Study) -> None:
    best = build_trials_table(study)["best_validation_auc"]
    assert best.is_monotonic_increasing
    assert best.iloc[-1] == study.best_value


def test_summary_has_the_auc_by_which_the_winner_was_ranked(study: optuna.Study) -> None:
    best = _summary(study)["best"]
    assert best["trial"] == rank_trials(study.trials)[0].number
    assert best["validation_auc"] == round(study.best_value, 6)


def test_finished_trials_are_ranked_by_validation_auc_then_by_number() -> None:
    study = optuna.create_study(direction="maximize")
    for auc in (0.8, 0.9, None, 0.95, 0.9, 0.95):
        state = TrialState.PRUNED if auc is None else TrialState.COMPLETE
        study.add_trial(optuna.create_trial(state=state, value=auc))
    assert [trial.number for trial in rank_trials(study.trials)] == [3, 5, 1, 4, 0]


def test_compute_saved_by_hand() -> None:
    """Of 30 steps each: one took all, one was pruned after 10, one failed after 3."""
    study = optuna.create_study(direction="maximize")
    for state, steps in ((TrialState.COMPLETE, 30), (TrialState.PRUNED, 10), (TrialState.FAIL, 3)):
        trial = study.ask()
        trial.set_user_attr("optimizer_steps", steps)
        trial.set_user_attr("planned_optimizer_steps", 30)
        study.tell(trial, 0.9 if state == TrialState.COMPLETE else None, state=state)
    assert compute_pruning_savings(study) == pytest.approx(20 / (30 + 30 + 3))


def test_compute_saved_is_null_without_recorded_progress() -> None:
    study = optuna.create_study(direction="maximize")
    study.tell(study.ask(), 0.9)
    assert _summary(study)["compute_saved"] is None
    assert "compute_saved" not in build_search_metrics(study)


def test_summary_has_gain_with_interval_and_counts(study: optuna.Study) -> None:
    figures = _summary(study, Gain(0.00567891234, Interval(-0.0012345678, 0.0123456789)))
    assert figures["gain_over_trial_0"] == {
        "auc": 0.005679,
        "interval": {"low": -0.001235, "high": 0.012346},
    }
    assert sum(figures["trials"].values()) == 16
    assert figures["trials"]["failed"] == 1
    assert figures["trials"]["pruned"] > 0
    json.dumps(figures, allow_nan=False)


def test_gain_is_null_if_trial_0_did_not_finish(study: optuna.Study) -> None:
    assert _summary(study, None)["gain_over_trial_0"] is None


def test_times_are_summed_in_mlflow_metrics_only(study: optuna.Study) -> None:
    metrics = build_search_metrics(study)
    assert metrics["wall_seconds"] == sum(trial.user_attrs.get("wall_seconds", 0) for trial in study.trials)
    assert metrics["cpu_seconds"] == pytest.approx(1.5 * metrics["wall_seconds"])
    assert metrics["trials_finished"] + metrics["trials_pruned"] + metrics["trials_failed"] == 16
    assert not any("seconds" in name for name in [*_summary(study), *build_trials_table(study).columns])
