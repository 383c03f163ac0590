"""Seconds of training until the validation AUC reaches a target."""

import logging
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from bench.peers.peer import BATCH_SIZE, Peer, batches_of
from bench.peers.plain import PlainPeer
from bench.processes import seconds_of
from bench.training.own import train_logged
from bench.training.task import Changes, Task, open_task

logger = logging.getLogger(__name__)


TARGET = 0.95
EVALUATIONS_PER_EPOCH = 4
"""Evaluations of a peer's validation AUC per epoch. This project evaluates once after each epoch."""
TIMED_STEPS = 5
"""Steps that are timed of a peer whose number of steps is known."""


@dataclass(frozen=True)
class Reached:
    """Seconds of training, without validation, until the target or the time limit."""

    seconds: float
    auc: float
    """Best validation AUC."""
    steps: int
    reached: bool

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s" if self.reached else f"> {self.seconds:.0f} s (AUC {self.auc:.4f})"


def own_time(target: float, changes: Changes) -> Reached:
    """Train with params.yaml; the target counts as reached after the first epoch with at least that AUC."""
    task = open_task(changes)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        costs = train_logged(task, Path(folder), target)
    best = max(cost.epoch.validation_auc for cost in costs)
    steps = len(costs) * -(-len(task.reviews.train) // task.params.train.batch_size)
    return Reached(sum(cost.since_last for cost in costs), best, steps, best >= target)


def padded_time(target: float, limit: float, changes: Changes) -> Reached:
    """Train the padded PyTorch peer until it reaches the target or the limit in seconds."""
    task = open_task(changes)
    return _time(task, PlainPeer(task, packed=False), target, limit)


def keras_time(target: float, limit: float, changes: Changes) -> Reached:
    """Train the Keras peer likewise; compilation counts."""
    from bench.peers.keras_lstm import KerasPeer  # from the optional extra `bench`

    task = open_task(changes)
    return _time(task, KerasPeer(task), target, limit)


def packed_time(padded: Reached, changes: Changes) -> Reached:
    """Estimate the time of the packed PyTorch peer for as many steps as the padded one took.

    Both compute the same, except that the backward direction starts at the last token of a review instead of
    in its padding. So both learn equally fast per step, and only the time of a step is measured.
    """
    task = open_task(changes)
    peer = PlainPeer(task, packed=True)
    rows = np.random.default_rng(0).permutation(len(task.reviews.train))[: TIMED_STEPS * BATCH_SIZE]
    step = statistics.median(seconds_of(peer.train, batch) for batch in batches_of(rows))
    return Reached(padded.steps * step, padded.auc, padded.steps, padded.reached)


def _time(task: Task, peer: Peer, target: float, limit: float) -> Reached:
    rng = np.random.default_rng(task.params.train.seed)
    seconds, best, steps = 0.0, 0.0, 0
    while seconds < limit:
        whole = len(task.reviews.train) // BATCH_SIZE * BATCH_SIZE
        batches = rng.permutation(len(task.reviews.train))[:whole].reshape(-1, BATCH_SIZE)
        for part in np.array_split(batches, EVALUATIONS_PER_EPOCH):
            seconds += seconds_of(peer.train, part.ravel())
            steps += len(part)
            auc = float(roc_auc_score(task.reviews.validation.labels, peer.score(task.reviews.validation)))
            best = max(best, auc)
            logger.info(f"{type(peer).__name__}: {seconds:.0f} s, {steps} steps, validation AUC {auc:.4f}")
            if best >= target or seconds >= limit:
                return Reached(seconds, best, steps, best >= target)
    return Reached(seconds, best, steps, reached=False)
