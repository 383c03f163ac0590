"""One search by different numbers of workers, killed, or interrupted: equal results, byte for byte."""

import logging
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from optuna.trial import TrialState

from bench.bars import Bar
from bench.processes import seconds_of
from bench.small import SMALL
from bench.tuning.project import SearchProject
from sentiment.params.search_space import SEARCHABLE

logger = logging.getLogger(__name__)

TRIALS = 12
KILLS = 20
MAX_STARTS = 3 * KILLS
WORKERS = 2
"""Workers of the search that the others are compared with, and of the one that is killed."""
OTHER_WORKERS = (1, 3)
INTERRUPTED_WORKERS = (2, 3)
"""Workers of the starts that are interrupted, one after the other; one worker ends that search."""
TRIALS_BETWEEN = 3
"""Trials that end in each of these starts before it is interrupted."""
PROGRESS_PER_KILL = 0.1
"""Mean progress of a start that is killed while it runs trials, as a share of the search. There are
`KILLS` / 2 of them, so that the last ones find the search about to end."""
CHANGES = {
    **{name: value for name, value in SMALL.items() if name.startswith((*SEARCHABLE, "tune"))},
    "train.epochs": 3,
    "tune.trials": TRIALS,
    "tune.max_parallel": 4,
    "tune.sampler": {"kind": "tpe", "startup_trials": 3},
    "tune.pruner": {"kind": "median", "startup_trials": 3, "warmup": 0.15},
    "tune.space": {
        **SMALL["tune.space"],
        "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm", "value"]},
    },
}
"""A search whose trials take about a second, with a conditional parameter: without clipping, no threshold."""


@dataclass(frozen=True)
class Reference:
    """Measurements of a search that is neither killed nor interrupted.

    Attributes:
        seconds_until_first_trial: time from the start of the stage to its first trial.
        reports: number of intermediate values and results that its trials report to the study.
    """

    seconds_until_first_trial: float
    reports: int


@dataclass(frozen=True)
class FinalState:
    """Contents of study and MLflow store after a search has ended."""

    states: Counter[TrialState]
    statuses: Counter[str]
    """Statuses of the trials' MLflow runs."""
    duplicated: int
    """Trials with more than one run."""
    parents: Counter[str]
    """Statuses of the search's own MLflow runs."""


def equality_bars(reviews: int | None, seed: int) -> list[Bar]:
    """Run the searches; count the files that differ from those of one that was never killed."""
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
        root = Path(folder)
        reference = SearchProject.made(root / "reference", reviews, CHANGES)
        started = datetime.now()
        total = seconds_of(reference.finish, WORKERS)
        first = min(trial.datetime_start for trial in reference.study().trials if trial.datetime_start)
        measured = Reference((first - started).total_seconds(), reference.count_reports())
        logger.info(f"workers: {WORKERS}: {total:.0f} s, {measured}")
        searches = {f"workers: {WORKERS}": reference}
        for workers in OTHER_WORKERS:
            name = f"workers: {workers}"
            searches[name] = reference.copy(root / name)
            logger.info(f"{name}: {seconds_of(searches[name].finish, workers):.0f} s")
        killed = searches[f"workers: {WORKERS}, {KILLS} kills"] = reference.copy(root / "killed")
        kill_and_resume(killed, measured, random.Random(seed))  # noqa: S311  # times of kills, not secrets
        name = f"workers: {', then '.join(map(str, (*INTERRUPTED_WORKERS, 1)))}"
        searches[name] = reference.copy(root / "interrupted")
        interrupt_and_resume(searches[name])
        expected = reference.results()
        compared = [
            compare_results(name, expected, search.results())
            for name, search in searches.items()
            if search != reference
        ]
        return compared + [trials_bar(name, read_final_state(search)) for name, search in searches.items()]


def kill_and_resume(project: SearchProject, reference: Reference, rng: random.Random) -> None:
    """Kill a search's whole process group at random moments, then let it end.

    One half of the kills is at a random time after the start of the stage, before a trial makes a report. The
    other half is at a random progress of the trials. Once the search has ended, all are at random times.

    Args:
        project: search to kill.
        reference: measurements of the same search without kills.
        rng: generator of the moments.

    Raises:
        RuntimeError: too many starts ended before the moment of their kill.
    """
    kills, latest = 0, reference.seconds_until_first_trial
    for _ in range(MAX_STARTS):
        started = time.perf_counter()
        progress = project.count_reports()
        if kills % 2 and progress < reference.reports:
            reports = rng.randint(1, max(1, round(2 * PROGRESS_PER_KILL * reference.reports)))
            moment = f"{reports} reports after {progress}"
            is_killed = project.kill(WORKERS, math.inf, min(progress + reports, reference.reports))
        else:
            seconds = rng.uniform(0, latest)
            moment = f"at most {seconds:.1f} s after the start, {progress} reports"
            is_killed = project.kill(WORKERS, seconds, progress + 1)
        kills += is_killed
        if not is_killed:  # a start takes less time on a machine that is less busy by now
            latest = min(latest, time.perf_counter() - started)
        logger.info(f"kill {kills} of {KILLS}, {moment}" if is_killed else f"ended before the kill, {moment}")
        if kills == KILLS:
            break
    else:
        raise RuntimeError(f"{MAX_STARTS} starts of a search, but only {kills} kills")
    project.finish(WORKERS)


def interrupt_and_resume(project: SearchProject) -> None:
    """Interrupt a search twice, each time with another number of workers; one worker ends it."""
    for number, workers in enumerate(INTERRUPTED_WORKERS, 1):
        project.interrupt(workers, number * TRIALS_BETWEEN)
        logger.info(f"workers: {workers}: interrupted")
    project.finish(1)


def compare_results(name: str, expected: Mapping[str, bytes], found: Mapping[str, bytes]) -> Bar:
    """Count the files that differ, or that only one of two searches has."""
    names = expected.keys() | found.keys()
    different = sorted(file for file in names if expected.get(file) != found.get(file))
    if different:
        logger.warning(f"{name}: these files differ: {', '.join(different)}")
    value = f"{len(different)} of {len(names)}"
    return Bar(f"files that differ, {name}", value, "0", bool(expected) and not different)


def read_final_state(project: SearchProject) -> FinalState:
    """Count trials and runs by state and status."""
    runs = project.runs()
    trials = [run for run in runs if "tune.trial" in run.data.tags]
    by_trial = Counter(run.data.tags["tune.trial"] for run in trials)
    return FinalState(
        Counter(trial.state for trial in project.study().trials),
        Counter(run.info.status for run in trials),
        sum(count > 1 for count in by_trial.values()),
        Counter(run.info.status for run in runs if "tune.trial" not in run.data.tags),
    )


def trials_bar(name: str, left: FinalState) -> Bar:
    """Compare the final state with the expected one: each trial once, finished, in study and store."""
    done = left.states[TrialState.COMPLETE] + left.states[TrialState.PRUNED]
    running = left.states[TrialState.RUNNING] + left.statuses["RUNNING"] + left.parents["RUNNING"]
    logged = left.statuses["FINISHED"] + left.statuses["KILLED"]
    once = left.duplicated == 0 and sum(left.states.values()) == sum(left.statuses.values()) == TRIALS
    value = f"{done} in the study, {logged} in MLflow, {left.duplicated} twice, {running} running"
    holds = done == logged == TRIALS and once and running == 0 and sum(left.parents.values()) == 1
    return Bar(f"trials, {name}", value, f"{TRIALS}, {TRIALS}, 0, 0", holds)
