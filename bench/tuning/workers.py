"""The same trials by one worker and by two."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.bars import Bar, at_least, spread
from bench.tuning.project import SearchProject

logger = logging.getLogger(__name__)

TRIALS = 8
ROUNDS = 2
"""Rounds of all settings by turns, since the speed of a shared machine changes."""
BAR = 1.2
SAME_TRIALS: Mapping[str, Any] = {
    "tune.trials": TRIALS,
    "tune.sampler": {"kind": "random"},
    "tune.pruner": {"kind": "none"},
}
"""A search that trains the same configurations, whatever their results: these depend on the threads."""


@dataclass(frozen=True)
class Setting:
    """How a search is run: the number of workers, and of threads of each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"workers: {self.workers}, threads of each: {self.threads}"


ONE, ONE_WITH_TWO_THREADS, TWO = Setting(1, 1), Setting(1, 2), Setting(2, 1)

Seconds = Mapping[Setting, list[float]]
"""Wall times of each setting, one for each round."""


def workers_bars(reviews: int | None) -> list[Bar]:
    """Compare two workers with the faster setting of one, without pruning; with pruning, with one thread.

    Raises:
        RuntimeError: the searches of a setting differ in their trials.
    """
    unpruned = measure_settings(reviews, SAME_TRIALS, (ONE, ONE_WITH_TWO_THREADS, TWO))
    pruned = measure_settings(reviews, {"tune.trials": TRIALS}, (ONE, TWO))
    return [
        at_least("two workers, times faster than one", compute_speedups(unpruned), BAR),
        Bar("the same with pruning", spread(compute_speedups(pruned)), "", None),
    ]


def compute_speedups(seconds: Seconds) -> list[float]:
    """Return, for each round, the time of the fastest setting with one worker, divided by that of two."""
    fastest = [min(times) for times in zip(*(seconds[one] for one in seconds if one != TWO), strict=True)]
    return [one / two for one, two in zip(fastest, seconds[TWO], strict=True)]


def measure_settings(
    reviews: int | None, changes: Mapping[str, Any], settings: tuple[Setting, ...]
) -> dict[Setting, list[float]]:
    """Run a search in each setting by turns; return the wall times.

    Args:
        reviews: maximum number of reviews of each split.
        changes: parameters of the search by dotted path.
        settings: settings to run the search in. Those with the same number of threads have equal trials.
    """
    seconds: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for _ in range(ROUNDS):
        values: dict[int, list[float | None]] = {}
        for setting in settings:
            with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
                threads = {"train.threads": setting.threads, "tune.threads": setting.threads}
                project = SearchProject.made(Path(folder), reviews, {**changes, **threads})
                project.finish(setting.workers)
                trials = project.study().trials
            seconds[setting].append(
                measure_trials([(trial.datetime_start, trial.datetime_complete) for trial in trials])
            )
            logger.info(f"{TRIALS} trials, {setting}: {seconds[setting][-1]:.0f} s")
            found = [trial.value for trial in trials]
            if found != values.setdefault(setting.threads, found):
                raise RuntimeError(f"{setting}: the trials differ from those of one worker")
    return seconds


def measure_trials(times: list[tuple[datetime | None, datetime | None]]) -> float:
    """Return the seconds from the start of the first trial to the end of the last one.

    Start of the stage and writing of its results take some ten seconds, which matter in a short search only.

    Args:
        times: start and end of each trial.
    """
    starts = [start for start, _ in times if start is not None]
    ends = [end for _, end in times if end is not None]
    return (max(ends) - min(starts)).total_seconds()
