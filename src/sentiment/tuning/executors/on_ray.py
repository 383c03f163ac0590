"""Trials on a Ray cluster: this process is the driver, and trains nothing itself.

The driver alone holds the study, the locks of the trials and the MLflow runs. One of its threads runs each
trial, exactly as a worker process does, but for the training: a Ray task on a node, whose reports the thread
receives and answers.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError, RayTaskError

from sentiment.child_processes import interrupt
from sentiment.cluster.connection import Cluster, connect
from sentiment.cluster.resources import Needs, read_task_memory
from sentiment.errors import UserError
from sentiment.logs import progress_bar
from sentiment.params import Params
from sentiment.settings import Settings
from sentiment.tracking import Run
from sentiment.training.runtime import resolve_device
from sentiment.tuning.executors.ray_driver import Driver
from sentiment.tuning.executors.ray_trainer import RayTrainer
from sentiment.tuning.study import Search
from sentiment.tuning.trial import run_available_trials

REFRESH_SECONDS = 0.5
"""Interval at which the driver counts the places of the cluster, since nodes join and die."""

GRACE_SECONDS = 20
"""Time limit for the threads of the driver to end their MLflow runs."""


@contextmanager
def open_ray_executor(params: Params, settings: Settings) -> Iterator["OnRay"]:
    """Connect to the cluster in `RAY_ADDRESS`, with all checks that can be made before any work starts.

    Raises:
        UserError: a check failed.
    """
    needs = compute_needs(params, settings)
    with connect(needs, "a trial", settings=settings) as cluster:
        yield OnRay(cluster, needs, settings)


def compute_needs(params: Params, settings: Settings) -> Needs:
    """Return what a trial needs of a node: `tune.threads` CPUs, a GPU if it trains on one, and memory."""
    gpus = 1 if resolve_device(params.train.device).type == "cuda" else 0
    return Needs(params.tune.threads, gpus, read_task_memory(settings))


class OnRay:
    """Runs a search on a Ray cluster, with as many trials at the same time as the cluster has places."""

    description = "ray"

    def __init__(self, cluster: Cluster, needs: Needs, settings: Settings) -> None:
        self._cluster, self._needs, self._settings = cluster, needs, settings

    def run(self, search: Search, run: Run) -> None:
        """Run the remaining trials of a search; SIGTERM ends it as Ctrl-C does."""
        if search.is_finished():
            return
        driver = Driver.start(search, self._cluster, self._needs, self._settings)
        handler = signal.signal(signal.SIGTERM, interrupt)
        try:
            _run_threads(driver, run)
        except RayTaskError:
            raise  # an error in the code, whose traceback is worth printing
        except RayError as error:
            raise UserError(f"Ray: {type(error).__name__}: {' '.join(str(error).split())}") from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        driver.delete_checkpoints()


def _run_threads(driver: Driver, run: Run) -> None:
    """Run the trials in `tune.max_parallel` threads; return when the search is finished."""
    search, errors = driver.search, list[BaseException]()
    failed_attempts: Counter[int] = Counter()

    def work(index: int) -> None:
        try:
            run_available_trials(search, run, RayTrainer(driver, index), failed_attempts)
        except KeyboardInterrupt:
            pass  # the search ends
        except BaseException as error:
            errors.append(error)

    count = search.params.tune.max_parallel
    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(count)]
    done = sum(trial.state.is_finished() for trial in search.load_trials())
    try:
        with progress_bar("tune", search.trial_count, done=done) as advance:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and not errors:
                driver.stopping.wait(REFRESH_SECONDS)
                driver.count_places()
                ended = sum(trial.state.is_finished() for trial in search.load_trials())
                advance(ended - done)
                done = ended
    finally:
        driver.stopping.set()
        deadline = time.monotonic() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
