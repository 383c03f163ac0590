"""Trials in the current process, one after the other."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sentiment.params import Params
from sentiment.settings import load_settings
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run
from sentiment.training.checkpoint import Checkpoint, open_checkpoint
from sentiment.training.fingerprint import TrainingFingerprint
from sentiment.training.loop import TrainingResult
from sentiment.tuning.active_trial import ActiveTrial
from sentiment.tuning.study import Search
from sentiment.tuning.trainer import POLL_SECONDS
from sentiment.tuning.trial import run_available_trials
from sentiment.tuning.trial_training import Reports, fit_trial

logger = logging.getLogger(__name__)


class InProcess:
    """Runs a search in this process."""

    description = "1"

    def run(self, search: Search, run: Run) -> None:
        """Run the remaining trials of a search."""
        run_available_trials(search, run, LocalTrainer())


class LocalTrainer:
    """Trains in this process, with checkpoints in the folder of the trial."""

    def __init__(self) -> None:
        self._waiting = False

    @contextmanager
    def open(self, trial: ActiveTrial, params: Params, key: TrainingFingerprint) -> Iterator["LocalTraining"]:
        """Open the checkpoint of a trial, which is deleted if the block completes without an error."""
        self._waiting = False
        folder = trial.search.checkpoint_folder(trial.number)
        with open_checkpoint(folder, key, load_settings().checkpoint_minutes) as checkpoint:
            yield LocalTraining(params, trial.search.reviews, trial.number, checkpoint)

    def is_available(self) -> bool:
        """Return True."""
        return True

    def wait_for_trial(self) -> None:
        """Wait, and log that once."""
        if not self._waiting:
            logger.info("waiting for trials that other processes run")
            self._waiting = True
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class LocalTraining:
    """The training of a trial in this process."""

    params: Params
    reviews: TrainingData
    number: int
    checkpoint: Checkpoint | None
    get_cpu_seconds: Callable[[], float] = time.process_time

    def fit(self, reports: Reports) -> TrainingResult:
        """Train in this process."""
        return fit_trial(self.params, self.reviews, self.number, self.checkpoint, reports)

    def wait(self, pending: Sequence[int]) -> None:
        """Wait; trials of lower number run in other processes."""
        time.sleep(POLL_SECONDS)
