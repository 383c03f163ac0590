"""The part of a trial on a Ray cluster that runs on a node: the training, whose reports go to the driver.

A node needs the installed package only: no file of the repository, no lock and no database.
"""

import asyncio
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
from numpy.typing import NDArray

from sentiment.cluster.versions import require_versions
from sentiment.errors import TrainingDivergedError, UserError
from sentiment.logs import silence
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE
from sentiment.model.model_files import load_model, save_model
from sentiment.params import Params
from sentiment.tokens.batches import TrainingData
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, IntermediateEvaluation
from sentiment.training.fingerprint import collect_numerics, compute_fingerprint
from sentiment.training.loop import TrainingResult
from sentiment.training.runtime import release_memory
from sentiment.tuning.executors.shared_checkpoint import CheckpointStore, SharedCheckpoint
from sentiment.tuning.trial_training import fit_trial


@dataclass(frozen=True)
class Started:
    """The first message of a training: where it runs, and how its sums are rounded."""

    node: str
    numerics: Mapping[str, str]


@dataclass(frozen=True)
class Restored:
    """The epochs of the checkpoint from which a training resumes."""

    epochs: Sequence[EpochMetrics]


Report = Started | Restored | IntermediateEvaluation | EpochMetrics


@dataclass(frozen=True)
class Message:
    """A report of a training, which waits for the driver's answer.

    Attributes:
        report: content.
        cpu_seconds: CPU time of the training so far.
    """

    report: Report
    cpu_seconds: float


class Mailbox:
    """Messages from the trainings to the driver and its answers; an actor beside the driver.

    A channel is the name of one attempt at a trial.
    """

    def __init__(self) -> None:
        self._messages: dict[str, asyncio.Queue[Message | None]] = defaultdict(asyncio.Queue)
        self._answers: dict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)
        self._closed: set[str] = set()

    async def send(self, channel: str, message: Message) -> bool:
        """Send a message to the driver; return its answer, whether to continue."""
        if channel in self._closed:
            return False
        await self._messages[channel].put(message)
        return await self._answers[channel].get()

    async def receive(self, channel: str, answer: bool | None) -> Message | None:
        """Answer the last message, if there was one, and return the next one; None: the channel is closed."""
        if answer is not None:
            await self._answers[channel].put(answer)
        return await self._messages[channel].get()

    async def close(self, channel: str) -> None:
        """Release who waits at a channel: the task ends."""
        self._closed.add(channel)
        await self._answers.pop(channel, asyncio.Queue()).put(False)
        await self._messages.pop(channel, asyncio.Queue()).put(None)


@dataclass(frozen=True)
class Assignment:
    """What a node gets to know of a trial.

    Attributes:
        channel: name of this attempt.
        number: trial number.
        params: parameters with the values of the trial.
        versions: versions of code and packages on the driver.
        checkpoint: folder of the trial in the checkpoint store, as an address; None trains without one.
        checkpoint_minutes: minimum number of minutes between two checkpoints within an epoch.
    """

    channel: str
    number: int
    params: Params
    versions: Mapping[str, str]
    checkpoint: str | None
    checkpoint_minutes: float


@dataclass(frozen=True)
class Outcome:
    """How a training on a node ended.

    Attributes:
        kind: `stopped` by the driver, an error that the user can fix, or a failure that may not recur.
        message: message of the error.
        files: files of the model by name, if the training finished.
        epochs: metrics of all epochs.
        best: position of the best epoch in `epochs`.
        logits: validation logits in the best epoch, shape (reviews,).
    """

    kind: Literal["finished", "stopped", "diverged", "error", "failed"]
    message: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    epochs: Sequence[EpochMetrics] = ()
    best: int = 0
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    @classmethod
    def finished(cls, result: TrainingResult) -> "Outcome":
        """Pack a result; the model is in the bytes of its files, whose format is the project's own."""
        with tempfile.TemporaryDirectory(prefix="sentiment-") as folder:
            save_model(Path(folder), result.model)
            files = {name: (Path(folder) / name).read_bytes() for name in (WEIGHTS_FILE, CONFIG_FILE)}
        best = result.epochs.index(result.best)
        return cls("finished", "", files, result.epochs, best, result.validation_logits)

    def to_result(self) -> TrainingResult:
        """Return the result of a finished training.

        Raises:
            TrainingDivergedError: a loss or gradient was not finite.
            UserError: the training met an error that the user can fix.
            RuntimeError: the training failed for a reason that may not recur.
        """
        match self.kind:
            case "diverged":
                raise TrainingDivergedError(self.message)
            case "error":
                raise UserError(self.message)
            case "failed" | "stopped":
                raise RuntimeError(self.message)
        with tempfile.TemporaryDirectory(prefix="sentiment-") as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            model = load_model(Path(folder))
        epochs = list(self.epochs)
        return TrainingResult(model, epochs, epochs[self.best], np.array(self.logits))


class _Stopped(Exception):  # noqa: N818
    """The driver ended the training: it prunes or suspends the trial, or the search ends."""


class MailboxReports:
    """Sends reports to the driver, and waits for each answer."""

    def __init__(self, mailbox: Any, channel: str) -> None:
        self._mailbox, self._channel = mailbox, channel
        self._started = time.process_time()

    def send(self, report: Report) -> None:
        """Send a report.

        Raises:
            _Stopped: the driver ends the training.
        """
        message = Message(report, time.process_time() - self._started)
        if not ray.get(self._mailbox.send.remote(self._channel, message)):
            raise _Stopped

    def log_restored_epochs(self, epochs: Sequence[EpochMetrics]) -> None:
        """Send the epochs of the checkpoint."""
        self.send(Restored(list(epochs)))

    def on_evaluation(self, evaluation: IntermediateEvaluation) -> None:
        """Send an intermediate evaluation."""
        self.send(evaluation)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Send the metrics of an epoch."""
        self.send(metrics)


def train_on_node(assignment: Assignment, reviews: TrainingData, mailbox: Any) -> Outcome:
    """Train the configuration of a trial on this node; a Ray task.

    Args:
        assignment: trial to train.
        reviews: training data in the node's object store.
        mailbox: handle of the mailbox.
    """
    silence()
    reports = MailboxReports(mailbox, assignment.channel)
    folder = Path(tempfile.mkdtemp(prefix="sentiment-"))
    try:
        require_versions(assignment.versions)
        train = assignment.params.train
        reports.send(Started(ray.get_runtime_context().get_node_id(), collect_numerics(train)))
        checkpoint = _open_checkpoint(assignment, reviews, folder)
        return Outcome.finished(fit_trial(assignment.params, reviews, assignment.number, checkpoint, reports))
    except _Stopped:
        return Outcome("stopped", "the driver ended the training")
    except TrainingDivergedError as error:
        return Outcome("diverged", str(error))
    except UserError as error:
        return Outcome("error", str(error))
    except (MemoryError, RuntimeError) as error:
        line, *_ = str(error).splitlines() or [""]
        return Outcome("failed", f"{type(error).__name__}: {line}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release_memory()


def _open_checkpoint(assignment: Assignment, reviews: TrainingData, folder: Path) -> Checkpoint | None:
    if assignment.checkpoint is None:
        return None
    key = str(compute_fingerprint(assignment.params.model, assignment.params.train, reviews))
    store = CheckpointStore.open(f"{assignment.checkpoint}/{key}")
    return SharedCheckpoint(folder, key, assignment.checkpoint_minutes, store)
