"""A search that is killed repeatedly, and its final state."""

import logging
import os
import random
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from bench.bars import Bar
from bench.processes import seconds_of
from bench.tuning.project import SearchProject

logger = logging.getLogger(__name__)

TRIALS = 12
KILLS = 20
WORKERS = 2
STARTING_SHARE = 0.3
"""Approximate share of an uninterrupted search before its workers train."""
CHANGES = {"tune.trials": TRIALS, "train.epochs": 2}


@dataclass(frozen=True)
class FinalState:
    """Contents of study and MLflow store after all kills and one run to the end."""

    states: Counter[TrialState]
    statuses: Counter[str]
    """Statuses of the trials' MLflow runs."""
    duplicated: int
    """Trials with more than one run."""
    parents: Counter[str]
    """Statuses of the search's own MLflow runs."""


def kill_and_resume(reviews: int | None, seed: int) -> FinalState:
    """Kill a search's whole process group at random moments, then let it end."""
    rng = random.Random(seed)  # noqa: S311  # times of kills, not secrets
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
        uninterrupted = SearchProject.made(Path(folder) / "uninterrupted", reviews, CHANGES)
        seconds = seconds_of(uninterrupted.finish, WORKERS)
        # From before the workers have started to one trial after: so that there is a process at each kill.
        latest = STARTING_SHARE * seconds + (1 - STARTING_SHARE) * seconds * WORKERS / TRIALS
        project = uninterrupted.copy(Path(folder) / "killed")
        for number in range(1, KILLS + 1):
            moment = rng.uniform(0, latest)
            _kill_after(project, moment)
            logger.info(f"kill {number} of {KILLS}, {moment:.1f} s after the start")
        project.finish(WORKERS)
        return read_final_state(project)


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


def kills_bar(left: FinalState) -> Bar:
    """Compare the final state with the expected one: each trial once, finished, in study and store."""
    done = left.states[TrialState.COMPLETE] + left.states[TrialState.PRUNED]
    running = left.states[TrialState.RUNNING] + left.statuses["RUNNING"] + left.parents["RUNNING"]
    logged = left.statuses["FINISHED"] + left.statuses["KILLED"]
    once = left.duplicated == 0 and sum(left.states.values()) == sum(left.statuses.values()) == TRIALS
    value = f"{done} in the study, {logged} in MLflow, {left.duplicated} twice, {running} running"
    holds = done == logged == TRIALS and once and running == 0 and sum(left.parents.values()) == 1
    return Bar(f"trials after {KILLS} kills", value, f"{TRIALS}, {TRIALS}, 0, 0", holds)


def _kill_after(project: SearchProject, seconds: float) -> None:
    process = project.start(WORKERS)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
