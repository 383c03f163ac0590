import re

import numpy as np
import pytest

from sentiment.retraining.report_plots import (
    FALSE_POSITIVE_RATES,
    MAX_POINTS,
    compute_roc,
    render_history,
    render_roc,
)


def _read_lines(chart: str) -> list[list[float]]:
    return [[float(value) for value in line.split(",")] for line in re.findall(r"line \[(.*)\]", chart)]


def test_curve_has_the_area_of_the_scores() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1], 2000)
    scores = labels + generator.normal(size=4000)
    rates = compute_roc(labels, scores)
    assert rates[-1] == 1
    assert rates == sorted(rates)
    assert np.trapezoid(rates, FALSE_POSITIVE_RATES) == pytest.approx(0.76, abs=0.02)  # Phi(1 / sqrt(2))


def test_charts_have_the_values_within_their_axes() -> None:
    curves = {"champion": [0.0, 0.5, 1.0], "challenger": [0.1, 0.6, 1.0]}
    roc = render_roc(curves)
    assert _read_lines(roc) == list(curves.values())
    assert "blue: champion, red: challenger" in roc
    aucs = {f"v{number}.0.0": 0.9 + number / 1000 for number in range(20)}
    history = render_history(aucs)
    (line,) = _read_lines(history)
    assert line == [round(auc, 4) for auc in list(aucs.values())[-MAX_POINTS:]]
    low, high = map(float, re.findall(r"y-axis .* (\S+) --> (\S+)", history)[0])
    assert low < min(line) < max(line) < high
    for chart in (roc, history):
        assert chart.startswith("```mermaid\n")
        assert chart.endswith("\n```")
