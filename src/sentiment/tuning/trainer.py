"""The interface between a trial and the place where it trains: this process, or a node of a cluster."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sentiment.params import Params
from sentiment.training.fingerprint import TrainingFingerprint
from sentiment.training.loop import TrainingResult
from sentiment.tuning.active_trial import ActiveTrial
from sentiment.tuning.trial_training import Reports

POLL_SECONDS = 0.1
"""Interval at which a worker looks for an available trial, and a trial for the reports that it needs."""


class TrialSuspended(Exception):  # noqa: N818
    """A trial waits for an earlier one that is not running, and makes way for it."""


class Training(Protocol):
    """The training of one trial, in this process or on a node of a cluster."""

    def fit(self, reports: Reports) -> TrainingResult:
        """Start or resume the training; its reports are received in this process.

        Raises:
            TrainingDivergedError: a loss or gradient is not finite.
            MemoryError, RuntimeError: the training failed for a reason that may not recur.
        """

    def get_cpu_seconds(self) -> float:
        """Return the CPU time of the training in seconds, since any fixed moment."""

    def wait(self, pending: Sequence[int]) -> None:
        """Wait `POLL_SECONDS` for the reports of other trials.

        Args:
            pending: numbers of the trials whose reports are missing.

        Raises:
            TrialSuspended: one of them cannot run until this training ends.
        """


class Trainer(Protocol):
    """Where the trainings of a worker run. There is one for each way to run a search."""

    def open(
        self, trial: ActiveTrial, params: Params, key: TrainingFingerprint
    ) -> AbstractContextManager[Training]:
        """Prepare the training of a trial.

        After an exception in the block, the checkpoint is retained, so that the trial can resume.

        Args:
            trial: trial whose lock this process holds.
            params: parameters with the values of the trial.
            key: fingerprint of the training.
        """

    def is_available(self) -> bool:
        """Return whether the worker may take up another trial now."""

    def wait_for_trial(self) -> None:
        """Wait `POLL_SECONDS`, since no trial is available."""
