"""Plots of `reports/retrain.md` as Mermaid's XY charts.

GitHub and GitLab draw them where they show Markdown. Summaries and pull requests cannot show images of a run,
which have no address, and embedded ones are removed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FALSE_POSITIVE_RATES = np.linspace(0, 1, 26)
"""Rates at which the curves are drawn; an XY chart has the points of a line at equal distances."""

COLOURS = ("#1f77b4", "#d62728")
COLOUR_NAMES = ("blue", "red")
MAX_POINTS = 12
"""Number of the last models in the history."""

DECIMALS = 4


def compute_roc(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> list[float]:
    """Compute the true positive rates at FALSE_POSITIVE_RATES, interpolated linearly.

    Args:
        labels: 0 or 1, both present, shape (reviews,).
        scores: higher means more positive, shape (reviews,).
    """
    from sklearn.metrics import roc_curve  # takes seconds, which reports without a comparison do without

    false_positive, true_positive, _ = roc_curve(labels, scores)
    rates = np.interp(FALSE_POSITIVE_RATES, false_positive, true_positive)
    return [round(float(rate), DECIMALS) for rate in rates]


def render_roc(curves: Mapping[str, Sequence[float]]) -> str:
    """Render the ROC curves of two models.

    Args:
        curves: results of `compute_roc` by the names of the models.
    """
    legend = ", ".join(f"{colour}: {name}" for name, colour in zip(curves, COLOUR_NAMES, strict=True))
    return _render_chart(
        f"ROC on the test split ({legend})",
        '"false positive rate" 0 --> 1',
        '"true positive rate" 0 --> 1',
        list(curves.values()),
    )


def render_history(aucs: Mapping[str, float]) -> str:
    """Render the AUC of some models, oldest first, of which the last ones are shown.

    Args:
        aucs: AUC by the name of the model.
    """
    shown = dict(list(aucs.items())[-MAX_POINTS:])
    low, high = min(shown.values()), max(shown.values())
    margin = max((high - low) / 2, 0.001)
    names = ", ".join(f'"{name}"' for name in shown)
    return _render_chart(
        "Test AUC of the champions and of the challenger",
        f"[{names}]",
        f'"test AUC" {max(0, low - margin):.4f} --> {min(1, high + margin):.4f}',
        [list(shown.values())],
    )


def _render_chart(title: str, x_axis: str, y_axis: str, lines: Sequence[Sequence[float]]) -> str:
    palette = ", ".join(COLOURS)
    return "\n".join(
        [
            "```mermaid",
            f"%%{{init: {{'themeVariables': {{'xyChart': {{'plotColorPalette': '{palette}'}}}}}}}}%%",
            "xychart-beta",
            f'    title "{title}"',
            f"    x-axis {x_axis}",
            f"    y-axis {y_axis}",
            *(f"    line [{', '.join(f'{value:.4f}' for value in line)}]" for line in lines),
            "```",
        ]
    )
