"""Worker processes that run the trials of a search: the current process, or several child processes."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import torch
from filelock import Timeout
from optuna.trial import TrialState

from sentiment.errors import UserError, translated_errors
from sentiment.lineage import TRAINING_INPUTS, log_datasets
from sentiment.logs import progress_bar, silence
from sentiment.params import Params
from sentiment.settings import load_settings, set_environment
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run, open_store
from sentiment.tracking.provenance import log_provenance
from sentiment.tuning.storage import open_storage
from sentiment.tuning.study import LIMITS, Search
from sentiment.tuning.trial import describe_outcome, run_trial
from sentiment.tuning.trial_params import ERROR
from sentiment.tuning.trial_records import acquire_trial, delete_surplus_models, open_trial_run, trial_lock

logger = logging.getLogger(__name__)

WORKERS_TAG, TRIALS_TAG, MAX_FAILED_TAG = "tune.workers", "tune.trials", "tune.max_failed"

MAX_CRASHES = 3
"""Number of worker crashes during a trial after which the trial fails."""

POLL_SECONDS = 0.5
"""Interval at which workers and their trials are polled."""

GRACE_SECONDS = 20
"""Time limit for a terminated worker to end its MLflow run, after which it is killed."""

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""Environment variable that torch and numpy's linear algebra read when they are imported."""


def run_search(search: Search, run: Run) -> None:
    """Run trials in `TUNE_WORKERS` processes until `tune.trials` trials have ended.

    Trials that have ended do not run again. With one worker, a resumed search has the same trials as an
    uninterrupted one. With several, the values that a trial draws depend on which other trials have ended.

    Args:
        search: search to run or resume.
        run: MLflow run of the search.

    Raises:
        UserError: too many trials failed, none finished, or a worker met an error that the user can fix.
    """
    tune, workers = search.params.tune, load_settings().tune_workers
    log_provenance(run, TRAINING_INPUTS)
    # The limits may change while the study stays the same, but a run's parameters may not: log them as tags.
    run.log_params(search.params.model_dump(exclude={"tune": LIMITS}))
    log_datasets(run, search.params, search.reviews)
    run.tag({TRIALS_TAG: str(tune.trials), MAX_FAILED_TAG: str(tune.max_failed), WORKERS_TAG: str(workers)})
    ended_count = sum(trial.state.is_finished() for trial in search.load_trials())
    if ended_count:
        logger.info(f"{search.name}: {ended_count} of {search.trial_count} trials are done")
    if workers == 1:
        run_available_trials(search, run)
    elif not search.is_finished():
        logger.info(f"{workers} workers: which values a trial draws depends on the order in which others end")
        run_workers(search, run, workers)
    delete_surplus_models(search)  # a process may have been killed after a trial ended and before this call


def run_available_trials(
    search: Search, run: Run, on_start: Callable[[int], None] = lambda number: None
) -> None:
    """Run trials in this process, alone or beside other workers, until the search is finished.

    While other workers run the last trials, this function waits, since the trial of a worker that crashes
    becomes available again.

    Args:
        search: search whose trials to run.
        run: MLflow run of the search.
        on_start: callback that receives the number of each trial before it starts or resumes.
    """
    waiting = False
    while not search.is_finished():
        with acquire_trial(search) as trial:
            if trial is not None:
                waiting = False
                on_start(trial.number)
                run_trial(search, run, trial)
                continue
        if not waiting:
            logger.info("waiting for trials that other processes run")
            waiting = True
        time.sleep(POLL_SECONDS)


def run_workers(search: Search, run: Run, count: int) -> None:
    """Run the remaining trials of a search in `count` processes; return when the search is finished.

    A worker that crashes is replaced. A trial during which workers crashed `MAX_CRASHES` times fails.

    Args:
        search: search whose trials to run.
        run: MLflow run of the search.
        count: number of worker processes.

    Raises:
        UserError: a worker raised an error that the user can fix, or workers crashed repeatedly before they
            started a trial.
    """
    crashes_by_trial: Counter[int | None] = Counter()
    threads_per_worker = max(1, torch.get_num_threads() // count)
    ended_trials = {trial.number for trial in search.load_trials() if trial.state.is_finished()}
    workers = [_start_worker(search, run, threads_per_worker) for _ in range(count)]
    try:
        with progress_bar("tune", search.trial_count, done=len(ended_trials)) as advance:
            while workers:
                wait([worker.process.sentinel for worker in workers], timeout=POLL_SECONDS)
                for worker in [worker for worker in workers if not worker.is_alive()]:
                    workers.remove(worker)
                    if worker.error is not None:
                        raise UserError(worker.error)
                    if worker.process.exitcode:
                        crashes_by_trial[worker.trial] += 1
                        _handle_crash(search, run, worker, crashes_by_trial[worker.trial])
                        workers.append(_start_worker(search, run, threads_per_worker))
                for trial in search.load_trials():
                    if trial.state.is_finished() and trial.number not in ended_trials:
                        ended_trials.add(trial.number)
                        logger.info(f"trial {trial.number}: {describe_outcome(trial)}")
                        advance(1)
    finally:
        _terminate_workers(workers)


@dataclass
class _Worker:
    """A worker process and the messages that it has sent.

    Attributes:
        process: child process that runs trials.
        messages: receiving end of a pipe, for trial numbers and at most one error message.
        trial: number of the trial that the worker started last; None if it has not started one.
        error: message of an error that the user can fix; None if there was none.
    """

    process: BaseProcess
    messages: Connection
    trial: int | None = None
    error: str | None = None

    def is_alive(self) -> bool:
        """Read all messages of the process, and return whether it is running."""
        alive = self.process.is_alive()
        with suppress(EOFError, OSError):
            while self.messages.poll():
                message = self.messages.recv()
                if isinstance(message, int):
                    self.trial = message
                else:
                    self.error = message
        return alive


def _start_worker(search: Search, run: Run, threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads would hang
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(search.params, search.name, run.id, sender), daemon=True
    )
    with set_environment(**{THREADS_VARIABLE: str(threads)}), _blocked_interrupts():
        process.start()
    sender.close()
    return _Worker(process, receiver)


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block SIGINT in this process and the child processes that it starts.

    Otherwise, Ctrl-C during the imports of a child process would print a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _run_worker(params: Params, name: str, run_id: str, messages: Connection) -> None:
    """Run trials in a child process until the search is finished or the parent process exits.

    The child does not log to the terminal, since the parent logs for all workers. It opens the reviews
    itself, memory-mapped, since arguments of a process are copied.
    """
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to child processes as well
    signal.signal(signal.SIGTERM, _handle_sigterm)
    silence()
    try:
        with translated_errors():
            search = Search(params, TrainingData.open(), open_storage(), name)
            run_available_trials(search, Run(open_store(), run_id), on_start=messages.send)
    except UserError as error:
        messages.send(str(error))
        raise SystemExit(UserError.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        # Libraries clean up when the interpreter exits; a signal during that would print a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handle_sigterm(signal_number: int, frame: FrameType | None) -> None:
    signal.signal(signal_number, signal.SIG_IGN)  # no second signal may interrupt the cleanup
    raise KeyboardInterrupt


def _exit_with_parent() -> None:
    """Wait until the parent process exits, then exit this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # immediately, since a restarted search waits until this process releases its trial


def _handle_crash(search: Search, run: Run, worker: _Worker, crashes: int) -> None:
    """Log that a worker crashed; mark its trial as failed after `MAX_CRASHES` crashes.

    Args:
        search: search that the worker runs.
        run: MLflow run of the search.
        worker: worker that crashed.
        crashes: number of crashes during the worker's trial, this one included.

    Raises:
        UserError: `MAX_CRASHES` workers crashed before they started a trial.
    """
    code = worker.process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"status {code}"
    if worker.trial is None:
        logger.warning(f"a worker crashed ({cause}) before it started a trial")
        if crashes >= MAX_CRASHES:
            raise UserError(f"{crashes} workers crashed before they started a trial; the last one: {cause}")
        return
    logger.warning(f"trial {worker.trial}: its worker crashed ({cause})")
    if crashes >= MAX_CRASHES:
        error = f"{crashes} workers crashed while running it; the last one: {cause}"
        _fail_trial(search, run, worker.trial, error)


def _fail_trial(search: Search, run: Run, number: int, error: str) -> None:
    """Mark a running trial as failed, in MLflow and in the study, unless another process has locked it."""
    lock = trial_lock(search, number)
    with search.study_lock, suppress(Timeout), lock.acquire(timeout=0):
        study = search.load_study()
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state != TrialState.RUNNING:  # the worker crashed after the trial had ended
            return
        with open_trial_run(run, search, number) as trial_run:  # a worker may crash before it starts the run
            trial_run.fail(error)
        search.storage.set_trial_user_attr(trial._trial_id, ERROR, error)
        study.tell(number, state=TrialState.FAIL)


def _terminate_workers(workers: Sequence[_Worker]) -> None:
    """Terminate the remaining workers; kill those that do not exit within `GRACE_SECONDS`."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
