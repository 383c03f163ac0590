"""One rank of a training on a Ray cluster: a task on a node, which needs neither files nor a database."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from numpy.typing import NDArray
from safetensors.torch import save
from torch._C._distributed_c10d import Store, TCPStore

from sentiment.cluster.versions import require_versions
from sentiment.logs import silence
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.training.checkpoint import STATE_FILE, Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import collect_numerics, compare_numerics
from sentiment.training.launch import open_process_group
from sentiment.training.ranks import SINGLE, Ranks
from sentiment.training.self_training import fit_with_self_training
from sentiment.training.state import TrainingState

POLL_SECONDS = 0.2
"""Interval at which the driver looks for messages, and a rank for the address of the others."""


@dataclass(frozen=True)
class Files:
    """Files of a checkpoint, by path relative to its folder."""

    changed: Mapping[str, bytes]
    names: frozenset[str]
    """All files that the checkpoint has."""


@dataclass(frozen=True)
class Assignment:
    """What a rank gets to know of a training, beside the reviews.

    Attributes:
        model: architecture of the model.
        train: training parameters.
        versions: versions of code and packages on the driver.
        numerics: settings of the driver that determine how sums are rounded.
        fingerprint: fingerprint of the training.
        checkpoint: files of the last checkpoint.
        minutes: minimum number of minutes between two checkpoints within an epoch.
    """

    model: ModelParams
    train: TrainParams
    versions: Mapping[str, str]
    numerics: Mapping[str, str]
    fingerprint: str
    checkpoint: Mapping[str, bytes]
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """Result of a training as rank 0 returns it: the weights in the format of safetensors."""

    weights: bytes
    epochs: Sequence[EpochMetrics]
    best: int
    """Position of the best epoch in `epochs`."""
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class NumericDifferences:
    """How a node rounds sums in another way than the driver."""

    description: str


Message = EpochMetrics | Files | NumericDifferences


class Inbox:
    """Messages to the driver, and the address where the ranks meet; an actor beside the driver."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._address: tuple[str, int] | None = None

    def send(self, message: Message) -> None:
        """Keep a message for the driver."""
        self._messages.append(message)

    def take(self) -> list[Message]:
        """Return the messages since the last call, in their order."""
        messages, self._messages = self._messages, []
        return messages

    def set_address(self, host: str, port: int) -> None:
        """Set the address of rank 0's store."""
        self._address = host, port

    def get_address(self) -> tuple[str, int] | None:
        """Return the address of rank 0's store; None before it is known."""
        return self._address


def train_rank(assignment: Assignment, ranks: Ranks, reviews: TrainingData, inbox: Any) -> Outcome | None:
    """Train as one rank, in a task on a node; return the outcome on rank 0."""
    silence()
    require_versions(assignment.versions)
    if differences := compare_numerics(collect_numerics(assignment.train), assignment.numerics):
        ray.get(inbox.send.remote(NumericDifferences(differences)))
    group: AbstractContextManager[Ranks] = nullcontext(SINGLE)
    if ranks.size > 1:
        group = open_process_group(assignment.train, ranks, 0, _open_store(ranks, inbox))
    with group, tempfile.TemporaryDirectory(prefix="sentiment-rank-") as folder:
        if not ranks.is_main:
            fit_with_self_training(assignment.model, assignment.train, reviews, lambda _: None, ranks=ranks)
            return None
        for name, content in assignment.checkpoint.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        checkpoint = SentCheckpoint(Path(folder), assignment.fingerprint, assignment.minutes, inbox)
        for epoch in checkpoint.epochs:  # an earlier start may have died before it sent the last one
            ray.get(inbox.send.remote(epoch))
        result = fit_with_self_training(
            assignment.model,
            assignment.train,
            reviews,
            lambda epoch: ray.get(inbox.send.remote(epoch)),
            checkpoint=checkpoint,
            ranks=ranks,
        )
    weights = save({name: weight.contiguous() for name, weight in result.model.state_dict().items()})
    return Outcome(weights, result.epochs, result.epochs.index(result.best), result.validation_logits)


def _open_store(ranks: Ranks, inbox: Any) -> Store:
    """Open the store in which the ranks find each other; rank 0 has it on its node."""
    host = ray.util.get_node_ip_address()
    interfaces = {a.address: name for name, addresses in psutil.net_if_addrs().items() for a in addresses}
    interface = interfaces.get("127.0.0.1" if host.startswith("127.") else host)
    if interface:  # else gloo listens where the host's name resolves to, which on Debian is loopback
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    if ranks.is_main:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        ray.get(inbox.set_address.remote(host, store.port))
        return store
    while (address := ray.get(inbox.get_address.remote())) is None:
        time.sleep(POLL_SECONDS)
    return TCPStore(address[0], address[1], is_master=False)


class SentCheckpoint(Checkpoint):
    """A checkpoint in a temporary folder of a node, each state of which is sent to the driver."""

    def __init__(self, folder: Path, fingerprint: str, minutes: float, inbox: Any, name: str = "") -> None:
        super().__init__(folder / name, f"{fingerprint}/{name}" if name else fingerprint, minutes)
        self._root, self._minutes, self._inbox = folder, minutes, inbox
        self._sent: dict[str, int] = {}

    def open_nested(self, name: str) -> Checkpoint:
        """Open the checkpoint of one of several trainings that this run consists of, in a subfolder."""
        return SentCheckpoint(self._root, self.fingerprint, self._minutes, self._inbox, name)

    def save(self, state: TrainingState) -> None:
        """Save the state and send it to the driver."""
        super().save(state)
        times = {name: path.stat().st_mtime_ns for name, path in list_files(self._root).items()}
        changed = [name for name, modified in times.items() if self._sent.get(name) != modified]
        content = {name: (self._root / name).read_bytes() for name in changed}
        ray.get(self._inbox.send.remote(Files(content, frozenset(times))))
        self._sent = times


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint and its nested ones, by relative path; a state after its weights."""
    paths = sorted(folder.rglob("*.safetensors"), key=lambda path: (path.name == STATE_FILE, path))
    complete = [path for path in paths if not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path for path in complete}
