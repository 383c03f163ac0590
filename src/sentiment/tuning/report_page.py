"""Report of a search as a self-contained, interactive HTML page."""

from html import escape

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from sentiment.params import Params
from sentiment.tuning.report_tables import MIN_FINISHED_TRIALS, build_clipping_table, build_importance_table
from sentiment.tuning.winner import get_last_intermediate_auc

VALIDATION_AUC, ANY_AUC = "validation AUC", "validation AUC; intermediate AUC if pruned"
FINISHED_COLOR, PRUNED_COLOR, WINNER_COLOR = "#1f77b4", "#999999", "#d62728"

PLOTLY_CONFIG = {"displaylogo": False, "responsive": True}

PAGE_HEAD = """<!DOCTYPE html>
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

    The page contains plotly.js (5 MB), so it needs no network. Identical studies produce identical pages.

    Args:
        study: study of the search.
        params: all parameters of params.yaml.
        winner: number of the winning trial.

    Raises:
        ValueError: no trial finished.
    """
    sections = [
        _render_section(
            "History", _plot_history(study), "Grey crosses: pruned trials, at their last intermediate AUC."
        ),
        _render_importance(study),
        _render_parallel_coordinates(study),
        _render_section(
            "Clipping", _plot_clipping(study, params), "One column for each kind of clipping. Grey: pruned."
        ),
        _render_section(
            "Intermediate values",
            _plot_intermediate_values(study, winner),
            "Dotted with a cross: pruned trials.",
        ),
    ]
    head = PAGE_HEAD.format(title=f"Search {escape(study.study_name)}", script=get_plotlyjs())
    return "\n".join([head, *sections, "</body>", "</html>", ""])


def _render_section(title: str, fig: go.Figure | None, caption: str) -> str:
    div_id = title.lower().replace(" ", "-")
    content = ""
    if fig is not None:
        fig.update_layout(title=None, template="plotly_white", margin={"t": 40})
        plot = fig.to_html(full_html=False, include_plotlyjs=False, div_id=div_id, config=PLOTLY_CONFIG)
        content = f'\n<div class="plot">{plot}</div>'
    return f"<h2>{title}</h2>\n<p>{escape(caption)}</p>{content}"


def _plot_history(study: optuna.Study) -> go.Figure:
    fig = visualization.plot_optimization_history(study, target_name=VALIDATION_AUC)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    fig.add_scatter(
        x=[trial.number for trial in pruned],
        y=[get_last_intermediate_auc(trial) for trial in pruned],
        mode="markers",
        marker={"symbol": "x", "color": PRUNED_COLOR},
        name="pruned",
    )
    fig.update_traces(line_shape="hv", name="best validation AUC so far", selector={"mode": "lines"})
    return fig.update_xaxes(title="trial", dtick=_compute_tick_distance(len(study.trials)))


def _render_importance(study: optuna.Study) -> str:
    table = build_importance_table(study).iloc[::-1]  # plotly draws the first bar at the bottom
    if table.empty:
        caption = f"Not computed: fewer than {MIN_FINISHED_TRIALS} trials finished."
        return _render_section("Importance", None, caption)
    bars = go.Bar(
        x=table["importance"], y=table["parameter"], orientation="h", marker={"color": FINISHED_COLOR}
    )
    fig = go.Figure(bars).update_xaxes(title="importance").update_yaxes(automargin=True)
    caption = "Importance of each parameter for reaching the best quarter of the trials (PED-ANOVA)."
    return _render_section("Importance", fig, caption)


def _render_parallel_coordinates(study: optuna.Study) -> str:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    shared = set.intersection(*(set(trial.params) for trial in finished)) if finished else set()
    omitted = sorted({name for trial in finished for name in trial.params} - shared)
    caption = "One line per finished trial, darker for a higher AUC."
    if omitted:
        caption += f" Parameters that some trials do not have are omitted: {', '.join(omitted)}."
    if not shared:
        return _render_section(
            "Parallel coordinates", None, "Not drawn: the finished trials have no parameter in common."
        )
    fig = visualization.plot_parallel_coordinate(study, params=sorted(shared), target_name=VALIDATION_AUC)
    # Optuna truncates long names at the end, where they differ.
    labels = [".".join(name.split(".")[-2:]) for name in sorted(shared)]
    fig.update_xaxes(ticktext=[VALIDATION_AUC, *labels])
    return _render_section("Parallel coordinates", fig, caption)


def _plot_clipping(study: optuna.Study, params: Params) -> go.Figure:
    table = build_clipping_table(study, params)
    kinds = sorted(table["kind"].unique())
    fig = make_subplots(1, len(kinds), shared_yaxes=True, subplot_titles=kinds)
    for column, kind in enumerate(kinds, start=1):
        rows = table[table["kind"] == kind]
        has_setting = rows["setting"].notna().all()
        points = go.Scatter(
            x=rows["setting"] if has_setting else ["none"] * len(rows),
            y=rows["validation_auc"].fillna(rows["intermediate_auc"]),
            text=[f"trial {number}" for number in rows["trial"]],
            mode="markers",
            marker={
                "color": [PRUNED_COLOR if state == "pruned" else FINISHED_COLOR for state in rows["state"]],
                "size": 9,
            },
            showlegend=False,
        )
        fig.add_trace(points, row=1, col=column)
        title = "percentile" if kind == "percentile" else "threshold"
        if has_setting:
            fig.update_xaxes(title=title, type="log", dtick="D2", row=1, col=column)
    return fig.update_yaxes(title=ANY_AUC, col=1)


def _plot_intermediate_values(study: optuna.Study, winner: int) -> go.Figure:
    fig = visualization.plot_intermediate_values(study)
    pruned = {f"Trial{trial.number}" for trial in study.trials if trial.state == TrialState.PRUNED}
    for line in fig.data:
        if line.name in pruned:
            symbols = ["circle"] * (len(line.x) - 1) + ["x"]
            line.update(
                line={"dash": "dot", "color": PRUNED_COLOR}, marker={"symbol": symbols, "color": PRUNED_COLOR}
            )
        line.update(name=line.name.replace("Trial", "trial ") + (", pruned" if line.name in pruned else ""))
        if line.name == f"trial {winner}":
            line.update(line={"color": WINNER_COLOR, "width": 3}, name=f"{line.name}, winner")
    last_index = max((index for line in fig.data for index in line.x), default=0)
    fig.update_xaxes(title="evaluation index", dtick=_compute_tick_distance(last_index))
    return fig.update_yaxes(title="intermediate AUC").update_layout(showlegend=True)


def _compute_tick_distance(count: int) -> int | None:
    """Return the distance of ticks that avoids fractions on a short integer axis; None for the default."""
    return 1 if count <= 20 else None
