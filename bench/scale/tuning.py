"""A search on a Ray cluster: equal results on any nodes and after kills, and what it costs and gains."""

import logging
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.bars import Bar, at_least, spread
from bench.processes import seconds_of
from bench.scale.nodes import LoopbackCluster, loopback_cluster
from bench.tuning.equality import CHANGES, compare_results
from bench.tuning.project import SearchProject

logger = logging.getLogger(__name__)

REVIEWS = 1500
"""Reviews of each split in the search whose results are compared."""
TRIALS = 8
NODES = 3
KILLS = 5
SECONDS_TO_KILL = (0.5, 2.0)
"""Range of the time for which a training runs before its node is killed."""
SEED = 1

EQUAL_TRIALS: Mapping[str, Any] = {
    "tune.trials": 8,
    "tune.max_parallel": 2,
    "tune.threads": 1,
    "tune.sampler": {"kind": "random"},
    "tune.pruner": {"kind": "none"},
    "tune.space": {
        "train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}
    },
}
"""A search whose trials all take the same time."""
EQUAL_TRIALS_REVIEWS = 500
ROUNDS = 5
"""Rounds of all settings by turns, since the speed of a shared machine changes."""
WARM_UP = 2
"""Trials in which the workers start, at most one for each: they do not count."""
MOST_OVERHEAD = 0.05
LEAST_SPEEDUP = 1.5


def tune_bars() -> list[Bar]:
    """Compare the files of searches in one process, in two, and on Ray with one node, three, and kills."""
    changes = {**CHANGES, "tune.trials": TRIALS}
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        root = Path(folder)
        reference = SearchProject.made(root / "reference", REVIEWS, changes)
        logger.info(f"in process: {seconds_of(reference.finish, 1):.0f} s")
        searches = {"2 processes": reference.copy(root / "processes")}
        logger.info(f"2 processes: {seconds_of(searches['2 processes'].finish, 2):.0f} s")
        for nodes in (1, NODES):
            name = f"Ray, nodes: {nodes}"
            searches[name] = reference.copy(root / name)
            with loopback_cluster(*[1] * nodes) as cluster:
                logger.info(f"{name}: {seconds_of(_finish, searches[name], cluster):.0f} s")
        name = f"Ray, nodes: {NODES}, {KILLS} kills of a node"
        searches[name] = reference.copy(root / "killed")
        with loopback_cluster(*[1] * NODES) as cluster:
            kills = kill_nodes(searches[name], cluster, root / "store")
        expected = reference.results()
        bars = [compare_results(name, expected, search.results()) for name, search in searches.items()]
    return [*bars, Bar("kills of a node that trained", str(kills), str(KILLS), kills == KILLS)]


def kill_nodes(project: SearchProject, cluster: LoopbackCluster, store: Path) -> int:
    """Run a search with checkpoints in a store; kill a node that trains, and add a new one, `KILLS` times.

    Returns:
        Number of kills before the search ended.
    """
    rng = random.Random(SEED)  # noqa: S311  # times of kills, not secrets
    process = project.start(
        None, RAY_ADDRESS=cluster.address, RAY_CHECKPOINTS=f"file://{store}", CHECKPOINT_MINUTES="0.01"
    )
    kills, busy_since = 0, None
    seconds = rng.uniform(*SECONDS_TO_KILL)
    while process.poll() is None and kills < KILLS:
        busy = cluster.find_busy()
        busy_since = (busy_since or time.monotonic()) if busy else None
        if busy and busy_since is not None and time.monotonic() - busy_since >= seconds:
            cluster.kill(rng.choice(busy))
            cluster.add(1)
            kills, busy_since, seconds = kills + 1, None, rng.uniform(*SECONDS_TO_KILL)
            logger.info(f"kill {kills} of {KILLS}")
    project.require_success(process)
    return kills


def overhead_bars() -> list[Bar]:
    """Compare the time of equal trials, once workers have started: by processes, on one node and on two."""
    seconds: dict[str, list[float]] = {"processes": [], "one node": [], "two nodes": []}
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        project = SearchProject.made(Path(folder) / "made", EQUAL_TRIALS_REVIEWS, EQUAL_TRIALS)
        for turn in range(ROUNDS):
            for name, times in seconds.items():
                search = project.copy(Path(folder) / f"{name} {turn}")
                places = 1 if name == "one node" else 2
                if name == "processes":
                    search.finish(places)
                else:
                    with loopback_cluster(*[1] * places) as cluster:
                        _finish(search, cluster)
                times.append(_measure_warm_trials(search, places))
                logger.info(f"{name}: {times[-1]:.2f} s per trial")
    more = [ray / local - 1 for ray, local in zip(seconds["two nodes"], seconds["processes"], strict=True)]
    gains = [2 * one / two for one, two in zip(seconds["one node"], seconds["two nodes"], strict=True)]
    return [
        Bar(
            "Ray on two nodes against two processes, time per trial, additional share",
            spread(more),
            f"≤ {MOST_OVERHEAD}",
            median(more) <= MOST_OVERHEAD,
        ),
        at_least("two one-core nodes, times faster than one", gains, LEAST_SPEEDUP),
    ]


def _finish(project: SearchProject, cluster: LoopbackCluster) -> None:
    project.finish(None, RAY_ADDRESS=cluster.address)


def _measure_warm_trials(project: SearchProject, places: int) -> float:
    trials = project.study().trials
    return compute_seconds_per_trial([t.datetime_complete for t in trials if t.datetime_complete], places)


def compute_seconds_per_trial(ends: Sequence[datetime], places: int) -> float:
    """Return the seconds for which a trial after the first `WARM_UP` ones keeps its place.

    Each place counts from the end of its warm-up trial to the end of its last one, so that it does not matter
    whether the places start together or take turns.

    Args:
        ends: time at which each trial ended.
        places: number of trials at a time.
    """
    seconds = sorted(end.timestamp() for end in ends)
    return (sum(seconds[-places:]) - sum(seconds[WARM_UP - places : WARM_UP])) / (len(seconds) - WARM_UP)
