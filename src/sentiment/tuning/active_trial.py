"""A trial that this process runs: its lock, its draw, and its reports to the study."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import UserError
from sentiment.tuning.pruning import build_pruner, decide_pruning, find_pending
from sentiment.tuning.sampling import count_known_results, draw_trial
from sentiment.tuning.study import Search, has_too_many_failures


@dataclass(frozen=True)
class ActiveTrial:
    """A running trial in the storage, whose lock this process holds.

    Attributes:
        search: search that the trial belongs to.
        number: trial number.
        id: id of the trial in the storage.
    """

    search: Search
    number: int
    id: int

    @classmethod
    def open(cls, search: Search, number: int) -> Self:
        """Return the trial with a number, whose lock the caller holds."""
        study_id = search.storage.get_study_id_from_name(search.name)
        return cls(search, number, search.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def load(self) -> FrozenTrial:
        """Load the trial from the storage."""
        return self.search.storage.get_trial(self.id)

    def set_user_attrs(self, values: dict[str, Any]) -> None:
        """Set user attributes of the trial."""
        for name, value in values.items():
            self.search.storage.set_trial_user_attr(self.id, name, value)

    def report(self, evaluation_index: int, auc: float) -> None:
        """Report the AUC of an intermediate evaluation to the study."""
        self.search.storage.set_trial_intermediate_value(self.id, evaluation_index, auc)

    def decide_pruning(self) -> bool | None:
        """Decide whether to prune the trial after its last report; None if that is not decided yet."""
        pruner = build_pruner(self.search.params)
        return decide_pruning(pruner, self.search.load_trials(), self.number)

    def find_missing_reports(self) -> tuple[list[int], bool]:
        """Find the trials whose reports the pruning decision needs.

        Returns:
            Their numbers, and whether one of them is run by no worker, after a crash.
        """
        with self.search.study_lock:
            pending = find_pending(self.search.load_trials(), self.number)
            return pending, any(_is_unlocked(self.search, number) for number in pending)

    def record_outcome(self, state: TrialState, auc: float | None = None) -> FrozenTrial:
        """Record the outcome of the trial, with its AUC if it is complete."""
        return self.search.load_study().tell(self.number, auc, state)


@contextmanager
def acquire_trial(search: Search) -> Iterator[ActiveTrial | None]:
    """Lock a trial for this process until the block ends; yield None if no trial is available at present.

    Each trial is run by exactly one worker. Trials whose process died come first and retain their number and
    the values that they drew; then new ones while there are fewer than `tune.trials`, each as soon as the
    trials that it is drawn from have ended. The operating system releases the lock of a trial when the
    process dies.

    Raises:
        UserError: another program added a trial to the study, or the drawn values are invalid.
    """
    with search.study_lock:
        number, lock = _lock_available_trial(search)
    try:
        yield None if number is None else ActiveTrial.open(search, number)
    finally:
        if lock:
            lock.release()


def trial_lock(search: Search, number: int) -> FileLock:
    """Return the lock that the worker of a trial holds."""
    return FileLock(search.folder / f"trial-{number}.lock")


def _is_unlocked(search: Search, number: int) -> bool:
    """Return whether no process runs a trial; the caller holds the lock of the study."""
    try:
        with trial_lock(search, number).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _lock_available_trial(search: Search) -> tuple[int | None, FileLock | None]:
    """Return the number of an available trial and its acquired lock; (None, None) if none is available."""
    trials = search.load_trials()
    _require_own_trials(trials)
    if has_too_many_failures(trials, search.params.tune.max_failed):
        return None, None
    for candidate in trials:
        if candidate.state == TrialState.RUNNING:
            lock = trial_lock(search, candidate.number)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return candidate.number, lock
    needed = trials[: count_known_results(len(trials), search.params.tune.max_parallel)]
    if len(trials) < search.trial_count and all(trial.state.is_finished() for trial in needed):
        # The values are drawn before the trial exists, so that no trial in the study has some of them only.
        drawn = draw_trial(search.params, trials, search.starting_values)
        lock = trial_lock(search, len(trials))
        lock.acquire()
        search.load_study().add_trial(drawn)
        return len(trials), lock
    return None, None


def _require_own_trials(trials: Sequence[FrozenTrial]) -> None:
    """Raise a UserError if another program, for example the dashboard, has enqueued a trial."""
    enqueued = [trial.number for trial in trials if trial.state == TrialState.WAITING]
    if enqueued:
        raise UserError(
            f"tune: another program enqueued trial {enqueued[0]}, but a search must be reproducible from "
            "params.yaml alone; to try these values, set them in params.yaml: they are those of trial 0. "
            "Delete the study, or change tune.seed to start a new one"
        )
