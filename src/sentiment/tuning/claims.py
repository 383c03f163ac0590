"""Who runs which trial: each by one process at a time, and none by nobody."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from sentiment.tuning.study import Search, too_many_failed


@contextmanager
def claimed_trial(search: Search) -> Iterator[optuna.Trial | None]:
    """Yield a trial for this process alone, until the block ends; None where there is none to be had now.

    First come trials whose process died: they keep their number and the values that they had drawn. Then
    those that wait, then new ones while there are fewer than `tune.trials`. A trial's lock tells whether
    somebody runs it: the system lets go of it when the process dies.
    """
    with search.claims:
        trial, lock = _claim(search)
    try:
        yield trial
    finally:
        if lock:
            lock.release()


def trial_lock(search: Search, number: int) -> FileLock:
    """Return the lock that is held by who runs the trial."""
    return FileLock(search.folder / f"trial-{number}.lock")


def _claim(search: Search) -> tuple[optuna.Trial | None, FileLock | None]:
    study = search.study()
    trials = search.trials()
    if too_many_failed(trials, search.params.tune.max_failed):
        return None, None
    for found in trials:
        if found.state == TrialState.RUNNING:
            lock = trial_lock(search, found.number)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return optuna.Trial(study, found._trial_id), lock
    if len(trials) < search.total or any(trial.state == TrialState.WAITING for trial in trials):
        trial = study.ask()
        lock = trial_lock(search, trial.number)
        lock.acquire()
        return trial, lock
    return None, None
