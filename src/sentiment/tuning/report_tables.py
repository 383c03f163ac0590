"""Report of a search as tables, which `dvc plots` shows."""

import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from sentiment.files import write_csv
from sentiment.params import Params
from sentiment.params.search_space import replace_values
from sentiment.tuning.winner import STATES, build_trials_table, get_last_intermediate_auc, get_validation_auc

logger = logging.getLogger(__name__)

MIN_FINISHED_TRIALS = 6
"""Minimum number of finished trials for which importance is computed. With fewer, it ranked the wrong
parameter first half of the time."""

TARGET_QUANTILE = 0.25
"""Share of best trials whose parameters PED-ANOVA compares with those of all trials. With a quarter, more
searches of 6 to 25 trials ranked the right parameter first than with Optuna's default, a tenth."""

NUMBER_FORMAT = "%.6g"
"""Format with significant digits, so that a small learning rate is not rounded to zero."""


class TrialOutcome(NamedTuple):
    """Outcome of a trial: the first columns of tables with rows per trial."""

    trial: int
    state: str
    validation_auc: float | None
    intermediate_auc: float | None

    @property
    def has_auc(self) -> bool:
        """Whether the trial has a validation AUC or an intermediate AUC."""
        return self.validation_auc is not None or self.intermediate_auc is not None


def write_tables(reports: Path, study: optuna.Study, params: Params) -> None:
    """Write `tune.csv` with all trials, and the tables of the plots to the folder `tune/`."""
    tables = {
        "tune": build_trials_table(study),
        "tune/importance": build_importance_table(study),
        "tune/intermediate": build_intermediate_table(study),
        "tune/clipping": build_clipping_table(study, params),
        "tune/parallel": build_parallel_table(study),
    }
    for name, table in tables.items():
        write_csv(reports / f"{name}.csv", table, numbers=NUMBER_FORMAT)
    if tables["tune/importance"].empty:
        logger.info(
            f"hyperparameter importance: not computed, fewer than {MIN_FINISHED_TRIALS} trials finished"
        )


def build_importance_table(study: optuna.Study) -> pd.DataFrame:
    """Compute the importance of each hyperparameter for the AUC of finished trials.

    The method is PED-ANOVA (Watanabe et al., 2023). It is deterministic and supports conditional parameters.

    Returns:
        One row per hyperparameter, the most important first; importances sum to 1. The table is empty if
        fewer than `MIN_FINISHED_TRIALS` trials finished.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    importance: dict[str, float] = {}
    if len(finished) >= MIN_FINISHED_TRIALS:
        names = sorted({name for trial in finished for name in trial.params})
        with warnings.catch_warnings():
            # Optuna warns of parameters that only one trial has; they get no importance.
            warnings.simplefilter("ignore")
            evaluator = PedAnovaImportanceEvaluator(target_quantile=TARGET_QUANTILE)
            importance = get_param_importances(study, evaluator=evaluator, params=names)
    rows = sorted(importance.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(rows, columns=["parameter", "importance"])


def build_intermediate_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial and intermediate evaluation, with its AUC and the state of the trial."""
    rows = [
        (trial.number, STATES[trial.state], index, auc)
        for trial in study.trials
        for index, auc in sorted(trial.intermediate_values.items())
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "evaluation_index", "intermediate_auc"])


def build_clipping_table(study: optuna.Study, params: Params) -> pd.DataFrame:
    """Return one row per trial with an AUC: its outcome, its kind of clipping and the clipping's setting.

    The setting is the percentile for the kind `percentile`, empty for `none`, and otherwise the threshold.
    Values that the trial did not draw are those of `params`.
    """
    rows = []
    for trial in _select_evaluated_trials(study):
        clip = replace_values(params, trial.params).train.clip
        setting = getattr(clip, "threshold", getattr(clip, "percentile", None))
        rows.append((*_get_outcome(trial), clip.kind, setting))
    return pd.DataFrame(rows, columns=[*TrialOutcome._fields, "kind", "setting"])


def build_parallel_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial and parameter; `place` is the value's position on its axis, from 0 to 1.

    Trials without an AUC are omitted. Logarithmic ranges have a logarithmic axis.
    """
    trials = _select_evaluated_trials(study)
    names = sorted({name for trial in trials for name in trial.params})
    axes = {name: _Axis(trials, name) for name in names}
    rows = [
        (
            *_get_outcome(trial),
            *(name, _format_value(value), axis.scale(value)),
            *(_format_value(axis.low), _format_value(axis.high)),
        )
        for trial in trials
        for name, axis in axes.items()
        if (value := trial.params.get(name)) is not None
    ]
    columns = [*TrialOutcome._fields, "parameter", "value", "place", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


class _Axis:
    """Axis of a parameter in parallel coordinates, which spans its ranges in all trials."""

    def __init__(self, trials: Iterable[FrozenTrial], name: str) -> None:
        distributions: list[BaseDistribution] = [
            trial.distributions[name] for trial in trials if name in trial.distributions
        ]
        choices = [d.choices for d in distributions if isinstance(d, CategoricalDistribution)]
        self.choices = list(dict.fromkeys(choice for group in choices for choice in group))
        ranges: list[Any] = [d for d in distributions if not isinstance(d, CategoricalDistribution)]
        self.is_log = all(d.log for d in ranges)
        self.low: Any = self.choices[0] if self.choices else min(d.low for d in ranges)
        self.high: Any = self.choices[-1] if self.choices else max(d.high for d in ranges)

    def scale(self, value: Any) -> float:
        """Return the position of a value on the axis: 0 for the lowest, 1 for the highest."""
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        low, high, x = (math.log(x) if self.is_log else x for x in (self.low, self.high, value))
        return 0.5 if low == high else (x - low) / (high - low)


def _format_value(value: Any) -> str:
    return NUMBER_FORMAT % value if isinstance(value, float) else str(value)


def _select_evaluated_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a validation AUC or an intermediate AUC."""
    return [trial for trial in study.trials if _get_outcome(trial).has_auc]


def _get_outcome(trial: FrozenTrial) -> TrialOutcome:
    return TrialOutcome(
        trial=trial.number,
        state=STATES[trial.state],
        validation_auc=get_validation_auc(trial),
        intermediate_auc=get_last_intermediate_auc(trial),
    )
