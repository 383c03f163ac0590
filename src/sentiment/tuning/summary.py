"""A finished study as a table and as figures."""

from collections.abc import Iterable
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per trial: state, validation AUC (the last seen), best so far, steps, parameters."""
    rows = [
        {
            "trial": trial.number,
            "state": STATES[trial.state],
            "validation_auc": _auc(trial),
            "steps": trial.user_attrs.get("steps"),
            **trial.params,
        }
        for trial in study.trials
    ]
    table = pd.DataFrame(rows)
    finished = table["validation_auc"].where(table["state"] == "finished")
    table.insert(3, "best_so_far", finished.cummax().ffill())
    return table


def summary(study: optuna.Study) -> dict[str, Any]:
    """Return counts by state, the best trial, and its gain in AUC over trial 0 (null where that failed)."""
    first, best = study.trials[0], study.best_trial
    gain = None if first.value is None else study.best_value - first.value
    return {
        "trials": {name: _count(study.trials, state) for state, name in STATES.items()},
        "best": {"trial": best.number, "validation_auc": round(study.best_value, 6), "params": best.params},
        "gain_over_trial_0": None if gain is None else round(gain, 6),
    }


def _auc(trial: FrozenTrial) -> float | None:
    values = trial.intermediate_values
    return trial.value if trial.value is not None else values[max(values)] if values else None


def _count(trials: Iterable[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)
