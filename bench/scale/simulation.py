"""Searches with many workers, simulated as discrete events.

Trials have the AUC curves of the recorded trials of bench/tuning and the times per optimizer step of the 17
trials of two default searches on two cores, both drawn at random. They are drawn, pruned and awaited by the
rules of the search: trial n starts when trials 0 to n - `tune.max_parallel` have ended, and a pruning that
depends on an earlier trial's next report is awaited, polled as in the search. The driver, the study's journal
and the MLflow store each do one thing at a time, in the measured time (bench/scale/driver_costs.py).

Not simulated: the start of workers, the transfer of reviews to nodes, crashes.
"""

import csv
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.scale.driver_costs import DriverCosts
from bench.tuning.record import RECORDED_TRIALS, name_evaluation
from sentiment.params import load_params
from sentiment.params.tune import MedianPruning
from sentiment.tuning.pruning import HIGHEST_AUC, LOWEST_AUC
from sentiment.tuning.sampling import count_known_results
from sentiment.tuning.trainer import POLL_SECONDS

RECORDED_TIMES = Path(__file__).with_name("recorded_times.csv")
STEPS = 498
"""Optimizer steps of a trial of the default search that is not pruned."""
EVALUATIONS = 8
EPOCH_ENDS = (4, 8)
SATURATED = 0.9
"""Share of the time from which a part that works all the time is the limit."""

REPORT_WRITES = 3
"""Writes to the study for a report: two of the optimizer steps, and the AUC."""
EPOCH_WRITES = 2
"""Writes after each epoch: wall and processor time."""
START_WRITES, END_WRITES = 1, 4
START_REQUESTS, EPOCH_REQUESTS, END_REQUESTS = 6, 1, 2
"""Requests to MLflow at the start of a trial (search, tags of the parent, start, parameters, tags, datasets),
after each epoch, and at the end."""


@dataclass(frozen=True)
class RecordedTrial:
    """A trial as it would run without pruning: seconds between its evaluations, and their AUCs."""

    segment_seconds: float
    curve: NDArray[np.float64]


@dataclass
class Server:
    """A part of the system that does one thing at a time."""

    free_at: float = 0.0
    busy: float = 0.0
    requests: int = 0

    def serve(self, now: float, seconds: float, requests: int = 1) -> float:
        """Queue work; return when it is done."""
        self.free_at = max(self.free_at, now) + seconds
        self.busy += seconds
        self.requests += requests
        return self.free_at


@dataclass(frozen=True)
class Outcome:
    """Result of a simulated search; loads are shares of its time."""

    seconds: float
    utilisation: float
    driver: float
    storage: float
    tracking: float
    storage_requests: float
    """Requests a second."""
    tracking_requests: float
    waiting: float
    """Share of the workers' time in which they wait for earlier trials' reports."""
    pruned: float
    windowed: bool
    """Whether `tune.max_parallel` delays the draw of some trials."""

    @property
    def limit(self) -> str:
        """The part that limits the search."""
        loads = {"driver": self.driver, "journal": self.storage, "MLflow store": self.tracking}
        busiest = max(loads, key=lambda name: loads[name])
        if loads[busiest] >= SATURATED:
            return busiest
        if self.waiting > 1 - self.utilisation - self.waiting:
            return "waiting for reports"
        return "tune.max_parallel" if self.windowed else "longest trials"


def simulate(
    workers: int, max_parallel: int, trial_count: int, costs: DriverCosts, seed: int = 0, pruning: bool = True
) -> Outcome:
    """Simulate a search.

    Args:
        workers: number of trials that can train at the same time.
        max_parallel: `tune.max_parallel`.
        trial_count: `tune.trials`.
        costs: what the operations of the driver take.
        seed: seed of the trials' times and curves.
        pruning: whether trials are pruned.
    """
    trials = draw_recorded(trial_count, np.random.default_rng(seed))
    return _Simulation(workers, max_parallel, trials, costs, pruning, read_startup_trials()).run()


@dataclass
class _Simulation:
    workers: int
    max_parallel: int
    trials: Sequence[RecordedTrial]
    costs: DriverCosts
    pruning: bool
    startup_trials: int
    now: float = 0.0
    started: int = 0
    first_running: int = 0
    """Number of the first trial that has not ended."""
    drawing: bool = False
    free_workers: int = 0
    training: float = 0.0
    waiting: float = 0.0
    pruned: int = 0
    driver: Server = field(default_factory=Server)
    storage: Server = field(default_factory=Server)
    tracking: Server = field(default_factory=Server)

    def __post_init__(self) -> None:
        self.free_workers = self.workers
        self.reports = np.full((len(self.trials), EVALUATIONS + 1), np.nan)
        self.ended = np.zeros(len(self.trials), dtype=bool)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.event_count = 0

    def run(self) -> Outcome:
        self._start_next()
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        seconds = self.now
        return Outcome(
            seconds=seconds,
            utilisation=self.training / (seconds * self.workers),
            driver=self.driver.busy / seconds,
            storage=self.storage.busy / seconds,
            tracking=self.tracking.busy / seconds,
            storage_requests=self.storage.requests / seconds,
            tracking_requests=self.tracking.requests / seconds,
            waiting=self.waiting / (seconds * self.workers),
            pruned=self.pruned / len(self.trials),
            windowed=self.max_parallel < len(self.trials),
        )

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self.event_count += 1  # events at the same time in the order in which they were planned
        heapq.heappush(self.events, (when, self.event_count, action))

    def _start_next(self) -> None:
        """Draw the next trial if a worker is free and the results that it needs are there."""
        number = self.started
        if self.drawing or not self.free_workers or number == len(self.trials):
            return
        if self.first_running < count_known_results(number, self.max_parallel):
            return
        self.drawing = True
        self.free_workers -= 1
        drawn = self.driver.serve(self.now, self.costs.load(number) + self.costs.draw(number))
        self._at(self._record(drawn, START_WRITES, START_REQUESTS), lambda: self._start(number))

    def _start(self, number: int) -> None:
        self.started, self.drawing = number + 1, False
        self._train(number, 1)
        self._start_next()

    def _train(self, number: int, index: int) -> None:
        """Train until evaluation `index`."""
        seconds = self.trials[number].segment_seconds
        self.training += seconds
        self._at(self.now + seconds, lambda: self._report(number, index))

    def _report(self, number: int, index: int) -> None:
        ends_epoch = index in EPOCH_ENDS
        writes = REPORT_WRITES + (EPOCH_WRITES if ends_epoch else 0)
        recorded = self._record(self.now, writes, EPOCH_REQUESTS if ends_epoch else 0)
        reported_at = self.now

        def decide() -> None:
            self.reports[number, index] = self.trials[number].curve[index - 1]
            if index == EVALUATIONS:
                self._end(number, pruned=False)
            else:
                self._decide(number, index, reported_at)

        self._at(recorded, decide)

    def _decide(self, number: int, index: int, reported_at: float) -> None:
        """Decide on pruning; if that is not possible yet, try again later, as a worker does."""
        decided_at = self.driver.serve(
            self.now, (self.costs.load(number) + self.costs.decide(number)) if self.pruning else 0.0
        )

        def act() -> None:
            prunes = self._prunes(number, index) if self.pruning else False
            if prunes is None:
                self._at(self.now + POLL_SECONDS, lambda: self._decide(number, index, reported_at))
                return
            self.waiting += self.now - reported_at
            if prunes:
                self._end(number, pruned=True)
            else:
                self._train(number, index + 1)

        self._at(decided_at, act)

    def _prunes(self, number: int, index: int) -> bool | None:
        reports, ended = self.reports[: number + 1], self.ended[:number]
        return decide_by_median(reports, ended, index, self.startup_trials)

    def _end(self, number: int, *, pruned: bool) -> None:
        self.pruned += pruned

        def release() -> None:
            self.ended[number] = True
            while self.first_running < self.started and self.ended[self.first_running]:
                self.first_running += 1
            self.free_workers += 1
            self._start_next()

        self._at(self._record(self.now, END_WRITES, END_REQUESTS), release)

    def _record(self, now: float, writes: int, requests: int) -> float:
        """Write to MLflow first and to the study last; return when both are done."""
        tracked = self.tracking.serve(now, requests * self.costs.track, requests) if requests else now
        return self.storage.serve(tracked, writes * self.costs.write, writes)


def decide_by_median(
    reports: NDArray[np.float64], ended: NDArray[np.bool_], index: int, startup_trials: int
) -> bool | None:
    """Decide as `decide_pruning` does with the pruner of params.yaml; its own work takes too long here.

    Args:
        reports: reports of the trials up to the one in question, shape (trials, evaluations + 1), by
            evaluation index; nan where there is none.
        ended: whether each of the earlier trials has ended, shape (trials - 1,).
        index: evaluation index of the last report.
        startup_trials: number of reports of other trials from which a trial may be pruned.
    """
    others = reports[:-1, index]
    known = others[~np.isnan(others)]
    pending = int(np.count_nonzero(np.isnan(others) & ~ended))
    best = float(np.nanmax(reports[-1, 1 : index + 1]))
    values = [known] + (
        [np.append(known, [auc] * pending) for auc in (LOWEST_AUC, HIGHEST_AUC)] if pending else []
    )
    decisions = {
        bool(len(compared) >= max(1, startup_trials) and best < np.median(compared)) for compared in values
    }
    return decisions.pop() if len(decisions) == 1 else None


def draw_recorded(count: int, rng: np.random.Generator) -> list[RecordedTrial]:
    """Draw trials from the recorded curves and times."""
    with RECORDED_TIMES.open() as file:
        seconds = [float(row["wall_seconds"]) / int(row["optimizer_steps"]) for row in csv.DictReader(file)]
    with RECORDED_TRIALS.open() as file:
        curves = [
            np.array([float(row[name_evaluation(index)]) for index in range(1, EVALUATIONS + 1)])
            for row in csv.DictReader(file)
        ]
    return [
        RecordedTrial(rng.choice(seconds) * STEPS / EVALUATIONS, curves[rng.integers(len(curves))])
        for _ in range(count)
    ]


def read_startup_trials() -> int:
    """Read how many reports of other trials the pruner of params.yaml needs; 0 if it needs none."""
    pruner = load_params().tune.pruner
    return pruner.startup_trials if isinstance(pruner, MedianPruning) else 0
