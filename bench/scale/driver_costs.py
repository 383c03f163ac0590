"""What a search costs the process that holds it, measured on this machine with the project's functions."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile

import optuna
from mlflow.entities import Metric, Param
from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.tuning.record import load_recorded_params
from sentiment import paths
from sentiment.params import Params
from sentiment.params.search_space import replace_values
from sentiment.settings import set_environment
from sentiment.tracking import open_store
from sentiment.tracking.run import start_run
from sentiment.tuning.pruning import build_pruner, decide_pruning
from sentiment.tuning.sampling import draw_trial
from sentiment.tuning.storage import open_journal
from sentiment.tuning.trial_params import get_starting_values, suggest_params

FEW, MANY = 64, 512
"""Numbers of earlier trials for which costs are measured; in between and beyond they grow linearly."""
REPEATS = 5
PARAMETERS, METRICS = 60, 40
"""Parameters of a trial's MLflow run, and metrics of one of its epochs."""
WRITES = 200


@dataclass(frozen=True)
class Linear:
    """A time in seconds as a function of the number of earlier trials."""

    start: float
    slope: float

    def __call__(self, trials: int) -> float:
        return self.start + self.slope * trials

    @classmethod
    def fit(cls, few: float, many: float) -> "Linear":
        """Return the line through the times at `FEW` and `MANY` trials."""
        slope = max(0.0, (many - few) / (MANY - FEW))
        return cls(max(0.0, few - slope * FEW), slope)


@dataclass(frozen=True)
class DriverCosts:
    """Seconds of each operation of the driver.

    Attributes:
        draw: draws the parameters of a trial.
        load: loads the trials of the study.
        decide: decides whether to prune a trial after a report.
        write: one write to the study's journal.
        track: one request to MLflow's sqlite store, the mean of those of a trial.
    """

    draw: Linear
    load: Linear
    decide: Linear
    write: float
    track: float


def measure_driver_costs() -> DriverCosts:
    """Measure each operation; takes about a minute."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params = replace_values(load_recorded_params(), {"tune.max_parallel": 1})
    few, many = (_build_trials(params, count) for count in (FEW, MANY))
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
        few_loads, write = _time_journal(Path(name) / "few.journal", few)
        many_loads, _ = _time_journal(Path(name) / "many.journal", many)
        track = _time_tracking(Path(name))
    return DriverCosts(
        draw=Linear.fit(*(_shortest(partial(_draw, params, trials)) for trials in (few, many))),
        load=Linear.fit(few_loads, many_loads),
        decide=Linear.fit(*(_time_decision(params, trials) for trials in (few, many))),
        write=write,
        track=track,
    )


def _shortest(work: Callable[[], object]) -> float:
    """Return the shortest of several times, since the machine may be busy with other work."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _build_trials(params: Params, count: int) -> list[FrozenTrial]:
    """Return finished trials with random parameters and eight reports each."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(count):
        trial = study.ask()
        suggest_params(trial, params)
        for index in range(1, 9):
            trial.report(0.9 + 1e-3 * index + 1e-5 * (number % 97), index)
        study.tell(trial, 0.91 + 1e-5 * (number % 89))
    return study.get_trials()


def _draw(params: Params, trials: Sequence[FrozenTrial]) -> FrozenTrial:
    return draw_trial(params, trials, [get_starting_values(params)])


def _time_decision(params: Params, trials: Sequence[FrozenTrial]) -> float:
    """Return the time of a decision while an earlier trial has not reported yet, as is usual with many."""
    pending = create_trial(
        state=TrialState.RUNNING, params=trials[-1].params, distributions=trials[-1].distributions
    )
    reporting = create_trial(
        state=TrialState.RUNNING,
        params=pending.params,
        distributions=pending.distributions,
        intermediate_values={1: 0.91},
    )
    compared = [*trials[:-1], pending, reporting]
    compared[-2].number, compared[-1].number = len(trials) - 1, len(trials)
    pruner = build_pruner(params)
    return _shortest(lambda: decide_pruning(pruner, compared, len(trials)))


def _time_journal(path: Path, trials: Sequence[FrozenTrial]) -> tuple[float, float]:
    """Return the time to load the trials of a study, with a new report each time, and that of one write."""
    storage = open_journal(path)
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    study.add_trials(trials)
    running = study.ask()
    start = time.perf_counter()
    for number in range(WRITES):
        storage.set_trial_user_attr(running._trial_id, "number", number)
    write = (time.perf_counter() - start) / WRITES

    def load() -> None:
        optuna.load_study(study_name="search", storage=storage).get_trials(deepcopy=False)

    return _shortest(load), write


def _time_tracking(root: Path) -> float:
    """Return the mean time of the requests of a trial to a new sqlite store."""
    for path in (paths.PARAMS, paths.PIPELINE):  # they mark the root, where the store is
        copyfile(path, root / path)
    hidden = {name: "" for name in os.environ if name.startswith("MLFLOW_")}
    with set_environment(**hidden, DVC_ROOT=str(root)):
        store = open_store()
        parent = start_run(store, "tune", "tune", source={})
        start, requests = time.perf_counter(), 0
        for number in range(REPEATS):
            with start_run(store, "tune", f"trial {number}", parent=parent) as run:
                params = [Param(f"p.{index}", str(index)) for index in range(PARAMETERS)]
                store.client.log_batch(run.id, params=params)
                for epoch in (1, 2):
                    metrics = [Metric(f"m.{index}", 0.5, 0, epoch) for index in range(METRICS)]
                    store.client.log_batch(run.id, metrics=metrics)
            requests += 6  # tags of the parent, start, three batches, end
        return (time.perf_counter() - start) / requests
