"""Trials in several child processes on this machine."""

import logging
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from filelock import Timeout

from sentiment.child_processes import blocked_interrupts, end_with_parent, interrupt
from sentiment.errors import INTERRUPTED_STATUS, UserError, translated_errors
from sentiment.logs import progress_bar, silence
from sentiment.params import Params
from sentiment.settings import load_settings
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run, open_store
from sentiment.training.runtime import resolve_device
from sentiment.tuning.active_trial import trial_lock
from sentiment.tuning.executors.in_process import LocalTrainer
from sentiment.tuning.storage import open_storage
from sentiment.tuning.study import Search
from sentiment.tuning.trial import MAX_ATTEMPTS, build_attempts_error, describe_outcome, run_available_trials
from sentiment.tuning.trial_records import open_trial_run

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Interval at which workers and their trials are polled."""

GRACE_SECONDS = 20
"""Time limit for a terminated worker to end its MLflow run, after which it is killed."""


def count_workers(params: Params) -> int:
    """Return the number of worker processes: `TUNE_WORKERS`, but at most `tune.max_parallel`.

    By default, the workers occupy all cores if they train on the CPU; a GPU has one worker.
    """
    requested, most = load_settings().tune_workers, params.tune.max_parallel
    if requested is None:
        on_cpu = resolve_device(params.train.device).type == "cpu"
        return min(most, max(1, torch.get_num_threads() // params.tune.threads)) if on_cpu else 1
    if requested > most:
        logger.warning(f"TUNE_WORKERS: {requested}, but tune.max_parallel is {most}: {most} workers run")
    return min(requested, most)


@dataclass(frozen=True)
class Processes:
    """Runs a search in several child processes.

    Attributes:
        count: number of processes.
    """

    count: int

    @property
    def description(self) -> str:
        """Number of processes."""
        return str(self.count)

    def run(self, search: Search, run: Run) -> None:
        """Run the remaining trials of a search.

        A worker that crashes is replaced, until workers have crashed `MAX_ATTEMPTS` times during the same
        trial.

        Raises:
            UserError: a worker raised an error that the user can fix, or workers crashed repeatedly.
        """
        if not search.is_finished():
            _run_workers(search, run, self.count)


def _run_workers(search: Search, run: Run, count: int) -> None:
    crashes_by_trial: Counter[int | None] = Counter()
    ended_trials = {trial.number for trial in search.load_trials() if trial.state.is_finished()}
    workers = [_start_worker(search, run) for _ in range(count)]
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
                        _handle_crash(search, run, worker, crashes_by_trial[worker.trial], workers)
                        workers.append(_start_worker(search, run))
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


def _start_worker(search: Search, run: Run) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads would hang
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(search.params, search.name, run.id, sender), daemon=True
    )
    with blocked_interrupts():
        process.start()
    sender.close()
    return _Worker(process, receiver)


def _run_worker(params: Params, name: str, run_id: str, messages: Connection) -> None:
    """Run trials in a child process until the search is finished or the parent process exits.

    The child does not log to the terminal, since the parent logs for all workers. It opens the reviews
    itself, memory-mapped, since arguments of a process are copied.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to child processes as well
    signal.signal(signal.SIGTERM, interrupt)
    silence()
    try:
        with translated_errors():
            search = Search(params, TrainingData.open(), open_storage(), name)
            run_available_trials(search, Run(open_store(), run_id), LocalTrainer(), on_start=messages.send)
    except UserError as error:
        messages.send(str(error))
        raise SystemExit(UserError.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED_STATUS) from None
    finally:
        # Libraries clean up when the interpreter exits; a signal during that would print a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handle_crash(search: Search, run: Run, worker: _Worker, crashes: int, others: Sequence[_Worker]) -> None:
    """Log that a worker crashed; stop the search after `MAX_ATTEMPTS` crashes during the same trial.

    Args:
        search: search that the worker runs.
        run: MLflow run of the search.
        worker: worker that crashed.
        crashes: number of crashes during the worker's trial, this one included.
        others: the workers that are running, which are terminated if the search stops.

    Raises:
        UserError: `MAX_ATTEMPTS` workers crashed during the trial, or before they started one.
    """
    code = worker.process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"status {code}"
    if worker.trial is None:
        logger.warning(f"a worker crashed ({cause}) before it started a trial")
        if crashes >= MAX_ATTEMPTS:
            raise UserError(f"{crashes} workers crashed before they started a trial; the last one: {cause}")
        return
    logger.warning(f"trial {worker.trial}: its worker crashed ({cause})")
    if crashes >= MAX_ATTEMPTS:
        cause = f"its worker crashed ({cause})"
        _terminate_workers(others)  # first: one of them may have started the trial again, and its run
        _fail_run(search, run, worker.trial, cause)
        raise build_attempts_error(worker.trial, cause)


def _fail_run(search: Search, run: Run, number: int, error: str) -> None:
    """Mark the MLflow run of a trial as failed, unless another process runs the trial; it can be resumed."""
    # A worker may crash before it starts the run.
    with (
        suppress(Timeout),
        trial_lock(search, number).acquire(timeout=0),
        open_trial_run(run, search, number) as trial_run,
    ):
        trial_run.fail(error)


def _terminate_workers(workers: Sequence[_Worker]) -> None:
    """Terminate the remaining workers; kill those that do not exit within `GRACE_SECONDS`."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
