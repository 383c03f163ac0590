"""The plots of a search on one page that needs nothing from outside."""

from html import escape

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from sentiment.params import Params
from sentiment.tuning.plots import LEAST_FINISHED, clipping_table, importance_table
from sentiment.tuning.summary import auc_of

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


def search_page(study: optuna.Study, params: Params, winner: int) -> str:
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
        y=[auc_of(trial) for trial in pruned],
        mode="markers",
        marker={"symbol": "x", "color": PRUNED},
        name="pruned",
    )
    figure.update_traces(line_shape="hv", name="best so far", selector={"mode": "lines"})
    return figure.update_xaxes(title="trial", dtick=_whole(len(study.trials)))


def _importance_section(study: optuna.Study) -> str:
    table = importance_table(study).iloc[::-1]  # plotly draws the first bar at the bottom
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
    table = clipping_table(study, params)
    kinds = sorted(table["kind"].unique())
    figure = make_subplots(1, len(kinds), shared_yaxes=True, subplot_titles=kinds)
    for column, kind in enumerate(kinds, start=1):
        rows = table[table["kind"] == kind]
        has_setting = rows["setting"].notna().all()
        points = go.Scatter(
            x=rows["setting"] if has_setting else ["none"] * len(rows),
            y=rows["validation_auc"],
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
