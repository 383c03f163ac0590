"""Measured values and the bars that they must meet."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sentiment.errors import exits_cleanly


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


@exits_cleanly
def run_parts(parts: Mapping[str, Callable[[], list[Bar]]], description: str | None) -> None:
    """Run the parts of a benchmark that `--parts` names, by default all; exit with 1 if a bar is missed.

    Args:
        parts: function that measures, prints its tables and returns its bars, by the name of the part.
        description: description of the benchmark for `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    chosen = parser.parse_args().parts
    raise SystemExit(report_bars([bar for part in chosen for bar in parts[part]()]))
