"""Who runs the trials: this process, or several that die with it."""

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
from sentiment.lineage import DATA_OF_TRAINING
from sentiment.logs import progress_bar, silence
from sentiment.params import Params
from sentiment.settings import load_settings, set_environment
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run, open_store
from sentiment.tracking.run_inputs import log_parameters, log_story
from sentiment.tuning.storage import open_storage
from sentiment.tuning.study import LIMITS, Search
from sentiment.tuning.trial import describe_outcome, run_trial
from sentiment.tuning.trial_params import ERROR
from sentiment.tuning.trial_records import acquire_trial, delete_surplus_models, open_trial_run, trial_lock

logger = logging.getLogger(__name__)


WORKERS_TAG, TRIALS_TAG, MAX_FAILED_TAG = "tune.workers", "tune.trials", "tune.max_failed"


def run_search(search: Search, run: Run) -> None:
    """Run trials until there are `tune.trials`, in `TUNE_WORKERS` processes.

    What is done already is not done again. With one worker, the trials are the same whether the search was
    ever stopped or not; with several, what a trial draws depends on which others had ended by then.
    Raises UserError where too many trials failed, none finished, or a worker met what only the user can mend.
    """
    tune, workers = search.params.tune, load_settings().tune_workers
    log_story(run, DATA_OF_TRAINING)
    # The totals may change while the study stays, and a run's parameters may not: those are tags.
    log_parameters(run, search.params.model_dump(exclude={"tune": LIMITS}))
    run.tag({TRIALS_TAG: str(tune.trials), MAX_FAILED_TAG: str(tune.max_failed), WORKERS_TAG: str(workers)})
    done = sum(trial.state.is_finished() for trial in search.load_trials())
    if done:
        logger.info(f"{search.name}: {done} of {search.trial_count} trials are done")
    if workers == 1:
        work(search, run)
    elif not search.is_finished():
        logger.info(f"{workers} workers: which values a trial draws depends on the order in which others end")
        run_workers(search, run, workers)
    delete_surplus_models(search)  # a kill may have come between a trial's end and this


DEATHS = 3
"""A trial whose workers died so often is the reason why."""

POLL_SECONDS = 0.5
GRACE_SECONDS = 20
"""For a worker that is told to stop, to say so to MLflow."""

THREADS = "OMP_NUM_THREADS"
"""Read by torch and by numpy's linear algebra when they are imported."""


def work(search: Search, run: Run, on_claim: Callable[[int], None] = lambda number: None) -> None:
    """Run trials until all are done or too many failed: one worker, alone or beside others.

    run: the search's. on_claim: told the number of each trial that is taken up. While others run the last
    ones, wait: one of them may die, and its trial is then to be had.
    """
    waiting = False
    while not search.is_finished():
        with acquire_trial(search) as trial:
            if trial is not None:
                waiting = False
                on_claim(trial.number)
                run_trial(search, run, trial)
                continue
        if not waiting:
            logger.info("waiting for trials that other processes run")
            waiting = True
        time.sleep(POLL_SECONDS)


def run_workers(search: Search, run: Run, count: int) -> None:
    """Run the rest of a search in `count` processes; return when it is over.

    A worker that dies is noticed, and another takes its place; a trial whose workers died `DEATHS` times is
    told to have failed. Raises UserError with what one of them met that only the user can mend.
    """
    deaths: Counter[int | None] = Counter()
    threads = max(1, torch.get_num_threads() // count)
    ended = {trial.number for trial in search.load_trials() if trial.state.is_finished()}
    crew = [_hire(search, run, threads) for _ in range(count)]
    try:
        with progress_bar("tune", search.trial_count, done=len(ended)) as advance:
            while crew:
                wait([worker.process.sentinel for worker in crew], timeout=POLL_SECONDS)
                for worker in [worker for worker in crew if not worker.is_alive()]:
                    crew.remove(worker)
                    if worker.fault is not None:
                        raise UserError(worker.fault)
                    if worker.process.exitcode:
                        deaths[worker.trial] += 1
                        _bury(search, run, worker, deaths[worker.trial])
                        crew.append(_hire(search, run, threads))
                for trial in search.load_trials():
                    if trial.state.is_finished() and trial.number not in ended:
                        ended.add(trial.number)
                        logger.info(f"trial {trial.number}: {describe_outcome(trial)}")
                        advance(1)
    finally:
        _dismiss(crew)


@dataclass
class _Worker:
    """A process that runs trials, and what it has told."""

    process: BaseProcess
    told: Connection
    trial: int | None = None
    """The last that it took up."""
    fault: str | None = None
    """What the user has to mend."""

    def is_alive(self) -> bool:
        """Whether it runs, once all is read that it had to say."""
        alive = self.process.is_alive()
        with suppress(EOFError, OSError):
            while self.told.poll():
                message = self.told.recv()
                if isinstance(message, int):
                    self.trial = message
                else:
                    self.fault = message
        return alive


def _hire(search: Search, run: Run, threads: int) -> _Worker:
    """Start a process that runs trials."""
    context = multiprocessing.get_context("spawn")  # a copy of a process with torch's threads would hang
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(search.params, search.name, run.id, tell), daemon=True)
    with set_environment(**{THREADS: str(threads)}), _without_interrupts():
        process.start()
    tell.close()
    return _Worker(process, told)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, in what is started too: a worker that still imports would die with a traceback."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _serve(params: Params, name: str, run_id: str, tell: Connection) -> None:
    """Be a worker: silent, since one process shows what all do, and gone when that one is.

    It maps the reviews anew: handed over, they would be copied.
    """
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent tells when to stop
    signal.signal(signal.SIGTERM, _interrupt)
    silence()
    try:
        with translated_errors():
            search = Search(params, TrainingData.open(), open_storage(), name)
            work(search, Run(open_store(), run_id), on_claim=tell.send)
    except UserError as error:
        tell.send(str(error))
        raise SystemExit(UserError.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what follows must not be interrupted
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # at once: whoever resumes the search waits for this process's trial


def _bury(search: Search, run: Run, worker: _Worker, times: int) -> None:
    """Say that a worker died; end its trial where that happened too often."""
    code = worker.process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"status {code}"
    if worker.trial is None:
        logger.info(f"a worker died ({cause}) before it took up a trial")
        if times >= DEATHS:
            raise UserError(f"{times} workers died before they took up a trial; the last one: {cause}")
        return
    logger.info(f"trial {worker.trial}: its worker died ({cause})")
    if times >= DEATHS:
        _give_up(search, run, worker.trial, f"{times} workers died while they ran it; the last one: {cause}")


def _give_up(search: Search, run: Run, number: int, error: str) -> None:
    lock = trial_lock(search, number)
    with search.study_lock, suppress(Timeout), lock.acquire(timeout=0):
        study = search.load_study()
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state != TrialState.RUNNING:  # it ended, and its worker died after that
            return
        with open_trial_run(run, search, number) as failed:  # the workers may have died before there was one
            failed.fail(error)
        search.storage.set_trial_user_attr(trial._trial_id, ERROR, error)
        study.tell(number, state=TrialState.FAIL)


def _dismiss(crew: Sequence[_Worker]) -> None:
    """End the processes that are left."""
    for worker in crew:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in crew:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
