"""What a figure must be, and whether it is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A figure, what it must be, and whether it is."""

    figure: str
    value: str
    bar: str
    holds: bool | None
    """None where there is no verdict: the figure is only to be known, or its bar is for another machine."""


def at_least(figure: str, values: Sequence[float], bar: float, unit: str = "") -> Bar:
    """Return the bar that the median of `values` is not below `bar`; the table shows their range too."""
    return Bar(figure, spread(values, unit), f"≥ {bar:g}{unit}", statistics.median(values) >= bar)


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return the median of values and, of several, their range."""
    median = f"{statistics.median(values):.2f}{unit}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f} to {max(values):.2f})"


def judge(bars: Sequence[Bar]) -> int:
    """Print bars as a table; return the exit status, 1 where one does not hold."""
    verdicts = {True: "yes", False: "no", None: ""}
    print("\n| figure | value | bar | holds |\n| --- | --- | --- | --- |")
    for bar in bars:
        print(f"| {bar.figure} | {bar.value} | {bar.bar} | {verdicts[bar.holds]} |")
    return 1 if any(bar.holds is False for bar in bars) else 0
