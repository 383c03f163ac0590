"""Plots of a search: tables for `dvc plots`, and one self-contained HTML page."""

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


LEAST_FINISHED = 6
"""Finished trials below which importance is not told: there it named the wrong parameter half of the time."""

GOOD_SHARE = 0.25
"""Importance is that for getting among this share of the trials. Optuna's default, a tenth, is one trial of
ten; with a quarter, more searches of 6 to 25 trials with a known answer had the right parameter first."""

OUTCOME_COLUMNS = ("trial", "state", "tuning_auc", "intermediate_auc")
"""First columns of a table with rows per trial."""

DIGITS = "%.6g"
"""So that a small learning rate is no zero."""


def write_tables(reports: Path, study: optuna.Study, params: Params, confirmed: list[HoldoutResult]) -> None:
    """Write `tune.csv` with every trial, and below `tune/` the tables behind the plots of the search.

    confirmed: the trials that met on the fold set aside.
    """
    tables = {
        "tune": add_holdout_auc(build_trials_table(study), confirmed),
        "tune/importance": build_importance_table(study),
        "tune/intermediate": build_intermediate_table(study),
        "tune/clipping": build_clipping_table(study, params),
        "tune/parallel": build_parallel_table(study),
    }
    for name, table in tables.items():
        write_csv(reports / f"{name}.csv", table, numbers=DIGITS)
    if tables["tune/importance"].empty:
        logger.info(f"importance of parameters: not told, fewer than {LEAST_FINISHED} trials finished")


def build_importance_table(study: optuna.Study) -> pd.DataFrame:
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
            importance = get_param_importances(study, evaluator=build_importance_evaluator(), params=names)
    rows = sorted(importance.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(rows, columns=["parameter", "importance"])


def build_importance_evaluator() -> PedAnovaImportanceEvaluator:
    """Return the evaluator that table and page share."""
    return PedAnovaImportanceEvaluator(target_quantile=GOOD_SHARE)


def build_intermediate_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per trial and check: the validation AUC at that step, and what became of the trial."""
    rows = [
        (trial.number, STATES[trial.state], index, auc)
        for trial in study.trials
        for index, auc in sorted(trial.intermediate_values.items())
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "evaluation_index", "intermediate_auc"])


def build_clipping_table(study: optuna.Study, params: Params) -> pd.DataFrame:
    """Return a row per trial that was validated: kind of clipping, its setting, AUC.

    Setting is the threshold or, of kind `percentile`, the percentile; empty of kind `none`. What the search
    did not draw is as in `params`.
    """
    rows = []
    for trial in _validated(study):
        clip = replace_values(params, trial.params).train.clip
        setting = getattr(clip, "threshold", getattr(clip, "percentile", None))
        rows.append((*_outcome(trial), clip.kind, setting))
    return pd.DataFrame(rows, columns=[*OUTCOME_COLUMNS, "kind", "setting"])


def build_parallel_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per validated trial and parameter: the value, and its place between low (0) and high (1).

    Of a logarithmic range the place is that of the logarithm; of choices, that in their order.
    """
    trials = _validated(study)
    axes = {name: _Axis(trials, name) for name in sorted({name for trial in trials for name in trial.params})}
    rows = [
        (
            *_outcome(trial),
            *(name, _written(value), axis.place(value), _written(axis.low), _written(axis.high)),
        )
        for trial in trials
        for name, axis in axes.items()
        if (value := trial.params.get(name)) is not None
    ]
    columns = [*OUTCOME_COLUMNS, "parameter", "value", "place", "low", "high"]
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
    return [trial for trial in study.trials if any(auc is not None for auc in _outcome(trial)[2:])]


def _outcome(trial: FrozenTrial) -> tuple[int, str, float | None, float | None]:
    return trial.number, STATES[trial.state], get_tuning_auc(trial), get_last_intermediate_auc(trial)


AUC = "validation AUC"
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
    """Return HTML with history, importance, parallel coordinates, clipping and intermediate values.

    winner: number of the trial that won. Interactive, with one copy of plotly.js inside (5 MB). Equal studies
    give equal pages. Raises ValueError where no trial finished.
    """
    sections = [
        _section("History", _history(study), "Grey crosses: pruned trials, at the last AUC seen of them."),
        _importance_section(study),
        _parallel_section(study),
        _section("Clipping", _clipping(study, params), "A column for each kind of clipping. Grey: pruned."),
        _section("Intermediate values", _intermediate(study, winner), "Dotted, with a cross: pruned trials."),
    ]
    head = HEAD.format(title=f"Search {escape(study.study_name)}", script=get_plotlyjs())
    return "\n".join([head, *sections, "</body>", "</html>", ""])


def _section(title: str, figure: go.Figure | None, words: str) -> str:
    name = title.lower().replace(" ", "-")
    content = ""
    if figure is not None:
        figure.update_layout(title=None, template="plotly_white", margin={"t": 40})
        drawn = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=CONFIG)
        content = f'\n<div class="plot">{drawn}</div>'
    return f"<h2>{title}</h2>\n<p>{escape(words)}</p>{content}"


def _history(study: optuna.Study) -> go.Figure:
    figure = visualization.plot_optimization_history(study, target_name=AUC)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    figure.add_scatter(
        x=[trial.number for trial in pruned],
        y=[get_last_intermediate_auc(trial) for trial in pruned],
        mode="markers",
        marker={"symbol": "x", "color": PRUNED},
        name="pruned",
    )
    figure.update_traces(line_shape="hv", name="best so far", selector={"mode": "lines"})
    return figure.update_xaxes(title="trial", dtick=_whole(len(study.trials)))


def _importance_section(study: optuna.Study) -> str:
    table = build_importance_table(study).iloc[::-1]  # plotly draws the first bar at the bottom
    if table.empty:
        words = f"Not told: fewer than {LEAST_FINISHED} trials finished."
        return _section("Importance", None, words)
    bars = go.Bar(x=table["importance"], y=table["parameter"], orientation="h", marker={"color": FINISHED})
    figure = go.Figure(bars).update_xaxes(title="share of importance").update_yaxes(automargin=True)
    return _section("Importance", figure, "What decided whether a trial was among the best quarter.")


def _parallel_section(study: optuna.Study) -> str:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    everywhere = set.intersection(*(set(trial.params) for trial in finished)) if finished else set()
    left_out = sorted({name for trial in finished for name in trial.params} - everywhere)
    words = "A line per finished trial, the darker the better."
    if left_out:
        words += f" Without {', '.join(left_out)}, which not every trial has."
    if not everywhere:
        return _section("Parallel coordinates", None, "Not drawn: no parameter is in every finished trial.")
    figure = visualization.plot_parallel_coordinate(study, params=sorted(everywhere), target_name=AUC)
    # Optuna cuts long names off at the end, which is what tells them apart.
    labels = [".".join(name.split(".")[-2:]) for name in sorted(everywhere)]
    figure.update_xaxes(ticktext=[AUC, *labels])
    return _section("Parallel coordinates", figure, words)


def _clipping(study: optuna.Study, params: Params) -> go.Figure:
    table = build_clipping_table(study, params)
    kinds = sorted(table["kind"].unique())
    figure = make_subplots(1, len(kinds), shared_yaxes=True, subplot_titles=kinds)
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
        figure.add_trace(points, row=1, col=column)
        title = "percentile" if kind == "percentile" else "threshold"
        if has_setting:
            figure.update_xaxes(title=title, type="log", dtick="D2", row=1, col=column)
    return figure.update_yaxes(title=AUC, col=1)


def _intermediate(study: optuna.Study, winner: int) -> go.Figure:
    figure = visualization.plot_intermediate_values(study)
    pruned = {f"Trial{trial.number}" for trial in study.trials if trial.state == TrialState.PRUNED}
    for line in figure.data:
        if line.name in pruned:
            last = len(line.x) - 1
            symbols = ["circle"] * last + ["x"]
            line.update(line={"dash": "dot", "color": PRUNED}, marker={"symbol": symbols, "color": PRUNED})
        line.update(name=line.name.replace("Trial", "trial ") + (", pruned" if line.name in pruned else ""))
        if line.name == f"trial {winner}":
            line.update(line={"color": BEST, "width": 3}, name=f"{line.name}, winner")
    steps = max((step for line in figure.data for step in line.x), default=0)
    figure.update_xaxes(title="step", dtick=_whole(steps)).update_yaxes(title=AUC)
    return figure.update_layout(showlegend=True)


def _whole(count: int) -> int | None:
    """Return the distance of ticks that keeps fractions off a short axis of whole numbers; None leaves it."""
    return 1 if count <= 20 else None
