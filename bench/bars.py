"""Measured values and the bars that they must meet."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A metric, its measured value, and the bar that it must meet."""

    metric: str
    value: str
    bar: str
    holds: bool | None
    """None: no verdict, because the metric has no bar or its bar is for another machine."""


def at_least(metric: str, values: Sequence[float], bar: float, unit: str = "") -> Bar:
    """Return a bar that holds if the median of `values` is at least `bar`; the value shows their range."""
    return Bar(metric, spread(values, unit), f"≥ {bar:g}{unit}", statistics.median(values) >= bar)


def spread(values: Sequence[float], unit: str = "") -> str:
    """Format the median of values and, if there are several, their range."""
    median = f"{statistics.median(values):.2f}{unit}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f} to {max(values):.2f})"


def report_bars(bars: Sequence[Bar]) -> int:
    """Print bars as a table; return the exit status, 1 if one does not hold."""
    verdicts = {True: "yes", False: "no", None: ""}
    print("\n| metric | value | target | met |\n| --- | --- | --- | --- |")
    for bar in bars:
        print(f"| {bar.metric} | {bar.value} | {bar.bar} | {verdicts[bar.holds]} |")
    return 1 if any(bar.holds is False for bar in bars) else 0
