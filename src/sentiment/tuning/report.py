"""Report of a search: tables for `dvc plots`, and one self-contained HTML page."""

import logging
import math
import warnings
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna import visualization
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from sentiment.files import write_csv
from sentiment.params import Params
from sentiment.params.search_space import replace_values
from sentiment.tuning.holdout import HoldoutResult, add_holdout_auc
from sentiment.tuning.winner import STATES, build_trials_table, get_last_intermediate_auc, get_tuning_auc

logger = logging.getLogger(__name__)

MIN_FINISHED_TRIALS = 6
"""Finished trials that importance needs. With fewer, it ranked the wrong parameter first half of the time."""

TARGET_QUANTILE = 0.25
"""Importance is measured for reaching this best share of the trials. Optuna's default, a tenth, is one trial
of ten; with a quarter, more searches of 6 to 25 trials with a known answer had the right parameter first."""

OUTCOME_COLUMNS = ("trial", "state", "tuning_auc", "intermediate_auc")
"""First columns of a table with rows per trial."""

NUMBER_FORMAT = "%.6g"
"""Significant digits, so that a small learning rate is not rounded to zero."""


def write_tables(
    reports: Path, study: optuna.Study, params: Params, holdout_results: list[HoldoutResult]
) -> None:
    """Write `tune.csv` with every trial, and in `tune/` the tables behind the plots of the search."""
    tables = {
        "tune": add_holdout_auc(build_trials_table(study), holdout_results),
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

    By PED-ANOVA (Watanabe et al., 2023), which draws nothing at random, so that equal studies give equal
    bytes, and which supports conditional parameters.

    Returns:
        One row per hyperparameter, the most important first; importances sum to 1. No rows if fewer than
        `MIN_FINISHED_TRIALS` trials finished.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    importance: dict[str, float] = {}
    if len(finished) >= MIN_FINISHED_TRIALS:
        names = sorted({name for trial in finished for name in trial.params})
        with warnings.catch_warnings():
            # It warns of a variant that only one trial has, whose parameters get no importance.
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
    """Return one row per trial that has an AUC: its kind of clipping, the setting, and the AUC.

    The setting is the threshold, or for `percentile` the percentile; it is empty for `none`. What the search
    did not draw is taken from `params`.
    """
    rows = []
    for trial in _evaluated_trials(study):
        clip = replace_values(params, trial.params).train.clip
        setting = getattr(clip, "threshold", getattr(clip, "percentile", None))
        rows.append((*_outcome(trial), clip.kind, setting))
    return pd.DataFrame(rows, columns=[*OUTCOME_COLUMNS, "kind", "setting"])


def build_parallel_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial and parameter, with the place of its value from low (0) to high (1).

    Trials without an AUC are left out. Logarithmic ranges have a logarithmic scale.
    """
    trials = _evaluated_trials(study)
    axes = {name: _Axis(trials, name) for name in sorted({name for trial in trials for name in trial.params})}
    rows = [
        (
            *_outcome(trial),
            *(name, _format(value), axis.place(value), _format(axis.low), _format(axis.high)),
        )
        for trial in trials
        for name, axis in axes.items()
        if (value := trial.params.get(name)) is not None
    ]
    columns = [*OUTCOME_COLUMNS, "parameter", "value", "place", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


class _Axis:
    """Range of a parameter over all trials, which may have different ones after a warm start."""

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


def _format(value: Any) -> str:
    return NUMBER_FORMAT % value if isinstance(value, float) else str(value)


def _evaluated_trials(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if any(auc is not None for auc in _outcome(trial)[2:])]


def _outcome(trial: FrozenTrial) -> tuple[int, str, float | None, float | None]:
    return trial.number, STATES[trial.state], get_tuning_auc(trial), get_last_intermediate_auc(trial)


TUNING_AUC, ANY_AUC = "tuning AUC", "tuning AUC; intermediate AUC if pruned"
FINISHED, PRUNED, BEST = "#1f77b4", "#999999", "#d62728"

CONFIG = {"displaylogo": False, "responsive": True}

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 1100px; margin: 1em auto; padding: 0 1em; }}
.plot {{ height: 450px; }}
</style>
<script>{script}</script>
</head>
<body>
<h1>{title}</h1>"""


def render_search_page(study: optuna.Study, params: Params, winner: int) -> str:
    """Render history, importance, parallel coordinates, clipping and intermediate values as one HTML page.

    The page is interactive, contains one copy of plotly.js (5 MB) and is equal for equal studies.

    Args:
        study: the study.
        params: the whole of params.yaml.
        winner: number of the trial that won.

    Raises:
        ValueError: no trial finished.
    """
    sections = [
        _section("History", _history(study), "Grey crosses: pruned trials, at their last intermediate AUC."),
        _importance_section(study),
        _parallel_section(study),
        _section("Clipping", _clipping(study, params), "One column for each kind of clipping. Grey: pruned."),
        _section("Intermediate values", _intermediate(study, winner), "Dotted with a cross: pruned trials."),
    ]
    head = HEAD.format(title=f"Search {escape(study.study_name)}", script=get_plotlyjs())
    return "\n".join([head, *sections, "</body>", "</html>", ""])


def _section(title: str, fig: go.Figure | None, caption: str) -> str:
    name = title.lower().replace(" ", "-")
    content = ""
    if fig is not None:
        fig.update_layout(title=None, template="plotly_white", margin={"t": 40})
        drawn = fig.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=CONFIG)
        content = f'\n<div class="plot">{drawn}</div>'
    return f"<h2>{title}</h2>\n<p>{escape(caption)}</p>{content}"


def _history(study: optuna.Study) -> go.Figure:
    fig = visualization.plot_optimization_history(study, target_name=TUNING_AUC)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    fig.add_scatter(
        x=[trial.number for trial in pruned],
        y=[get_last_intermediate_auc(trial) for trial in pruned],
        mode="markers",
        marker={"symbol": "x", "color": PRUNED},
        name="pruned",
    )
    fig.update_traces(line_shape="hv", name="best tuning AUC so far", selector={"mode": "lines"})
    return fig.update_xaxes(title="trial", dtick=_integer_ticks(len(study.trials)))


def _importance_section(study: optuna.Study) -> str:
    table = build_importance_table(study).iloc[::-1]  # plotly draws the first bar at the bottom
    if table.empty:
        caption = f"Not computed: fewer than {MIN_FINISHED_TRIALS} trials finished."
        return _section("Importance", None, caption)
    bars = go.Bar(x=table["importance"], y=table["parameter"], orientation="h", marker={"color": FINISHED})
    fig = go.Figure(bars).update_xaxes(title="importance").update_yaxes(automargin=True)
    return _section("Importance", fig, "For reaching the best quarter of the trials (PED-ANOVA).")


def _parallel_section(study: optuna.Study) -> str:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    in_all = set.intersection(*(set(trial.params) for trial in finished)) if finished else set()
    left_out = sorted({name for trial in finished for name in trial.params} - in_all)
    caption = "One line per finished trial, darker for a higher AUC."
    if left_out:
        caption += f" Without {', '.join(left_out)}, which not every trial has."
    if not in_all:
        return _section("Parallel coordinates", None, "Not drawn: no parameter is in every finished trial.")
    fig = visualization.plot_parallel_coordinate(study, params=sorted(in_all), target_name=TUNING_AUC)
    # Optuna truncates long names at the end, where they differ.
    labels = [".".join(name.split(".")[-2:]) for name in sorted(in_all)]
    fig.update_xaxes(ticktext=[TUNING_AUC, *labels])
    return _section("Parallel coordinates", fig, caption)


def _clipping(study: optuna.Study, params: Params) -> go.Figure:
    table = build_clipping_table(study, params)
    kinds = sorted(table["kind"].unique())
    fig = make_subplots(1, len(kinds), shared_yaxes=True, subplot_titles=kinds)
    for column, kind in enumerate(kinds, start=1):
        rows = table[table["kind"] == kind]
        has_setting = rows["setting"].notna().all()
        points = go.Scatter(
            x=rows["setting"] if has_setting else ["none"] * len(rows),
            y=rows["tuning_auc"].fillna(rows["intermediate_auc"]),
            text=[f"trial {number}" for number in rows["trial"]],
            mode="markers",
            marker={
                "color": [PRUNED if state == "pruned" else FINISHED for state in rows["state"]],
                "size": 9,
            },
            showlegend=False,
        )
        fig.add_trace(points, row=1, col=column)
        title = "percentile" if kind == "percentile" else "threshold"
        if has_setting:
            fig.update_xaxes(title=title, type="log", dtick="D2", row=1, col=column)
    return fig.update_yaxes(title=ANY_AUC, col=1)


def _intermediate(study: optuna.Study, winner: int) -> go.Figure:
    fig = visualization.plot_intermediate_values(study)
    pruned = {f"Trial{trial.number}" for trial in study.trials if trial.state == TrialState.PRUNED}
    for line in fig.data:
        if line.name in pruned:
            last = len(line.x) - 1
            symbols = ["circle"] * last + ["x"]
            line.update(line={"dash": "dot", "color": PRUNED}, marker={"symbol": symbols, "color": PRUNED})
        line.update(name=line.name.replace("Trial", "trial ") + (", pruned" if line.name in pruned else ""))
        if line.name == f"trial {winner}":
            line.update(line={"color": BEST, "width": 3}, name=f"{line.name}, winner")
    last_index = max((index for line in fig.data for index in line.x), default=0)
    fig.update_xaxes(title="evaluation index", dtick=_integer_ticks(last_index))
    return fig.update_yaxes(title="intermediate AUC").update_layout(showlegend=True)


def _integer_ticks(count: int) -> int | None:
    """Return the tick distance that avoids fractions on a short integer axis; None for the default."""
    return 1 if count <= 20 else None
