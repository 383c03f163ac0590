"""Training of a trial on a Ray cluster, as a thread of the driver sees it."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sentiment.params import Params
from sentiment.training.epoch_metrics import EpochMetrics, IntermediateEvaluation
from sentiment.training.fingerprint import TrainingFingerprint
from sentiment.training.loop import TrainingResult
from sentiment.tuning.active_trial import ActiveTrial
from sentiment.tuning.executors.ray_driver import Driver, TaskLost
from sentiment.tuning.executors.remote_training import Message, Restored, Started
from sentiment.tuning.trainer import TrialSuspended
from sentiment.tuning.trial_training import Reports

logger = logging.getLogger(__name__)

NODE_DEATH_SECONDS = 15
"""Time in which Ray notices that a node died. A worker that died on a node which is still alive after that
crashed by itself."""

STOP_SECONDS = 2
"""Time in which a task that waits for an answer ends, so that its worker can run the next one."""


class RayTrainer:
    """Trains on the cluster, for one thread of the driver."""

    def __init__(self, driver: Driver, index: int) -> None:
        """The threads with an index below the number of places take up trials."""
        self._driver, self._index = driver, index

    @contextmanager
    def open(self, trial: ActiveTrial, params: Params, key: TrainingFingerprint) -> Iterator["RayTraining"]:
        """Prepare a training; its checkpoint is deleted if the block completes without an error."""
        yield RayTraining(self._driver, params, trial.number, key)
        self._driver.delete_checkpoints(f"trial-{trial.number}")

    def is_available(self) -> bool:
        """Return whether the cluster has a place for this thread."""
        if self._driver.stopping.is_set():
            raise KeyboardInterrupt
        return self._index < self._driver.places

    def wait_for_trial(self) -> None:
        """Wait."""
        self._driver.wait()


class RayTraining:
    """The training of a trial on the cluster. It starts again, or resumes, if its node dies."""

    def __init__(self, driver: Driver, params: Params, number: int, key: TrainingFingerprint) -> None:
        self._driver, self._params, self._number, self._key = driver, params, number, key
        self._earlier_cpu_seconds = self._cpu_seconds = 0.0

    def get_cpu_seconds(self) -> float:
        """Return the CPU time of the tasks, as they last reported it."""
        return self._earlier_cpu_seconds + self._cpu_seconds

    def wait(self, pending: Sequence[int]) -> None:
        """Wait; make way for a trial that has no place."""
        if self._driver.has_queued(pending):
            raise TrialSuspended
        self._driver.wait()

    def fit(self, reports: Reports) -> TrainingResult:
        """Train on a node, and on another one if that dies.

        The death of a node does not count as a failed attempt at the trial; that of a worker alone does.

        Raises:
            RuntimeError: the worker crashed, or the training failed for a reason that may not recur.
        """
        while True:
            suspects = self._driver.list_nodes()
            task = self._driver.assign(self._number, self._params)
            seconds = 0.0
            try:
                while (message := task.receive(self._driver.stopping)) is not None:
                    self._cpu_seconds = message.cpu_seconds
                    if isinstance(message.report, Started):
                        suspects = {message.report.node}
                    seconds = STOP_SECONDS  # if the handling raises, the task waits for an answer
                    self._handle(message, reports)
                    seconds = 0.0
                return task.get_outcome().to_result()
            except TaskLost as error:
                if not self._has_died(suspects):
                    raise RuntimeError(f"its worker crashed ({error})") from None
                logger.warning(f"trial {self._number}: its node died, another one takes it")
            finally:
                task.stop(seconds)
                self._driver.note_end(self._number)
                self._earlier_cpu_seconds += self._cpu_seconds
                self._cpu_seconds = 0.0

    def _handle(self, message: Message, reports: Reports) -> None:
        match message.report:
            case Started() as started:
                self._driver.note_start(self._number, started, self._key)
            case Restored(epochs):
                reports.log_restored_epochs(epochs)
            case IntermediateEvaluation() as evaluation:
                reports.on_evaluation(evaluation)
            case EpochMetrics() as metrics:
                reports.on_epoch(metrics)

    def _has_died(self, nodes: set[str]) -> bool:
        """Return whether one of some nodes dies within `NODE_DEATH_SECONDS`."""
        deadline = time.monotonic() + NODE_DEATH_SECONDS
        while nodes <= self._driver.list_nodes():
            if time.monotonic() > deadline:
                return False
            self._driver.wait()
        return True
