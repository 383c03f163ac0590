"""What a search found out about the space, as tables for `dvc plots`."""

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from sentiment.outputs import write_csv
from sentiment.params import Params
from sentiment.params.substitution import substituted
from sentiment.progress import say
from sentiment.tuning.confirm import Confirmed, with_confirmation
from sentiment.tuning.summary import STATES, auc_of, trials_table

LEAST_FINISHED = 6
"""Finished trials below which importance is not told: there it named the wrong parameter half of the time."""

GOOD_SHARE = 0.25
"""Importance is that for getting among this share of the trials. Optuna's default, a tenth, is one trial of
ten; with a quarter, more searches of 6 to 25 trials with a known answer had the right parameter first."""

DIGITS = "%.6g"
"""So that a small learning rate is no zero."""


def write_tables(reports: Path, study: optuna.Study, params: Params, confirmed: list[Confirmed]) -> None:
    """Write `tune.csv` with every trial, and below `tune/` the tables behind the plots of the search.

    confirmed: the trials that met on the fold set aside.
    """
    tables = {
        "tune": with_confirmation(trials_table(study), confirmed),
        "tune/importance": importance_table(study),
        "tune/intermediate": intermediate_table(study),
        "tune/clipping": clipping_table(study, params),
        "tune/parallel": parallel_table(study),
    }
    for name, table in tables.items():
        write_csv(reports / f"{name}.csv", table, numbers=DIGITS)
    if tables["tune/importance"].empty:
        say(f"importance of parameters: not told, fewer than {LEAST_FINISHED} trials finished")


def importance_table(study: optuna.Study) -> pd.DataFrame:
    """Return how much each parameter decided about the AUC of finished trials, the most important first.

    PED-ANOVA (Watanabe et al., 2023): it draws nothing at random, so that equal studies give equal bytes,
    and knows parameters that only some trials have. The shares add up to 1; no rows where too few finished.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    importance: dict[str, float] = {}
    if len(finished) >= LEAST_FINISHED:
        names = sorted({name for trial in finished for name in trial.params})
        with warnings.catch_warnings():
            # Of a variant that one trial alone chose: nothing can be said of it, and nothing is.
            warnings.simplefilter("ignore")
            importance = get_param_importances(study, evaluator=importance_evaluator(), params=names)
    rows = sorted(importance.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(rows, columns=["parameter", "importance"])


def importance_evaluator() -> PedAnovaImportanceEvaluator:
    """Return the evaluator that table and page share."""
    return PedAnovaImportanceEvaluator(target_quantile=GOOD_SHARE)


def intermediate_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per trial and check: the validation AUC at that step, and what became of the trial."""
    rows = [
        (trial.number, STATES[trial.state], step, auc)
        for trial in study.trials
        for step, auc in sorted(trial.intermediate_values.items())
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "step", "validation_auc"])


def clipping_table(study: optuna.Study, params: Params) -> pd.DataFrame:
    """Return a row per trial that was validated: kind of clipping, its setting, AUC.

    Setting is the threshold or, of kind `percentile`, the percentile; empty of kind `none`. What the search
    did not draw is as in `params`.
    """
    rows = []
    for trial in _validated(study):
        clip = substituted(params, trial.params).train.clip
        setting = getattr(clip, "threshold", getattr(clip, "percentile", None))
        rows.append((trial.number, STATES[trial.state], clip.kind, setting, auc_of(trial)))
    return pd.DataFrame(rows, columns=["trial", "state", "kind", "setting", "validation_auc"])


def parallel_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per validated trial and parameter: the value, and its place between low (0) and high (1).

    Of a logarithmic range the place is that of the logarithm; of choices, that in their order.
    """
    trials = _validated(study)
    axes = {name: _Axis(trials, name) for name in sorted({name for trial in trials for name in trial.params})}
    rows = [
        (
            *(trial.number, STATES[trial.state], auc_of(trial)),
            *(name, _written(value), axis.place(value), _written(axis.low), _written(axis.high)),
        )
        for trial in trials
        for name, axis in axes.items()
        if (value := trial.params.get(name)) is not None
    ]
    columns = ["trial", "state", "validation_auc", "parameter", "value", "place", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


class _Axis:
    """One parameter's range, over all trials: a search that took over trials of another may have two."""

    def __init__(self, trials: Iterable[FrozenTrial], name: str) -> None:
        found: list[BaseDistribution] = [
            trial.distributions[name] for trial in trials if name in trial.distributions
        ]
        choices = [d.choices for d in found if isinstance(d, CategoricalDistribution)]
        self.choices = list(dict.fromkeys(choice for group in choices for choice in group))
        numbers: list[Any] = [d for d in found if not isinstance(d, CategoricalDistribution)]
        self.is_log = all(d.log for d in numbers)
        self.low: Any = self.choices[0] if self.choices else min(d.low for d in numbers)
        self.high: Any = self.choices[-1] if self.choices else max(d.high for d in numbers)

    def place(self, value: Any) -> float:
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        low, high, at = (math.log(x) if self.is_log else x for x in (self.low, self.high, value))
        return 0.5 if low == high else (at - low) / (high - low)


def _written(value: Any) -> str:
    return DIGITS % value if isinstance(value, float) else str(value)


def _validated(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if auc_of(trial) is not None]
