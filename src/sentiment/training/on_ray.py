"""Training on a Ray cluster: each rank is a task on a node, which needs neither files nor a database.

The driver, which holds the MLflow run and the checkpoint, passes the reviews through the object store and
gets epochs and checkpoints from rank 0. Ray Train would call back in a process of its own, and needs storage
that all nodes share for its checkpoints; so the ranks are plain tasks in a placement group.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from safetensors.torch import load, save
from torch._C._distributed_c10d import Store, TCPStore

from sentiment.cluster import Cluster, Needs, require_versions
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.logs import silence
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramBranch
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import STATE_FILE, Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import collect_numerics
from sentiment.training.launch import GRACE_SECONDS, MAX_STARTS, open_process_group
from sentiment.training.loop import TrainingResult
from sentiment.training.ranks import SINGLE, LostRankError, Ranks
from sentiment.training.self_training import fit_with_self_training
from sentiment.training.state import TrainingState

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""Interval at which the driver looks for messages, and a rank for the address of the others."""

OWN_NUMERICS = ("device", "precision")
"""Settings that the ranks must have in common with the driver, which logs them for the run."""


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


class Inbox:
    """Messages of rank 0 to the driver, and the address where the ranks meet; an actor beside the driver."""

    def __init__(self) -> None:
        self._messages: list[EpochMetrics | Files] = []
        self._address: tuple[str, int] | None = None

    def send(self, message: EpochMetrics | Files) -> None:
        """Keep a message for the driver."""
        self._messages.append(message)

    def take(self) -> list[EpochMetrics | Files]:
        """Return the messages since the last call, in their order."""
        messages, self._messages = self._messages, []
        return messages

    def set_address(self, host: str, port: int) -> None:
        """Set the address of rank 0's store."""
        self._address = host, port

    def get_address(self) -> tuple[str, int] | None:
        """Return the address of rank 0's store; None before it is known."""
        return self._address


def require_places(cluster: Cluster, needs: Needs, ranks: int) -> None:
    """Require that all ranks fit on the cluster at the same time.

    Raises:
        UserError: they do not.
    """
    places = cluster.count_slots(needs)
    if places < ranks:
        raise UserError(
            f"train.ranks is {ranks}, but {places} ranks with {needs} each fit on the Ray cluster; add "
            "nodes, or lower train.ranks or train.threads, on which the result depends"
        )


def fit_on_ray(
    cluster: Cluster,
    needs: Needs,
    minutes: float,
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    on_epoch: Callable[[EpochMetrics], None],
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train as `fit_with_self_training` does, with the `train.ranks` ranks on the nodes of a cluster.

    If a rank or its node dies, all ranks start again from the last checkpoint that the driver has.

    Args:
        cluster: cluster that this process is connected to.
        needs: what a rank needs of a node.
        minutes: minimum number of minutes between two checkpoints within an epoch.
        model_params: architecture of the model.
        params: training parameters.
        reviews: reviews, which a node gets once.
        on_epoch: callback that receives the metrics of each epoch once.
        checkpoint: checkpoint of the training; None keeps it in memory alone.

    Raises:
        UserError: the ranks do not fit on the cluster, a rank raised it, or ranks died repeatedly.
        TrainingDivergedError: a loss or gradient is not finite.
    """
    require_places(cluster, needs, params.ranks)
    driver = _Driver(cluster, needs, on_epoch, checkpoint)
    shared_reviews = ray.put(_to_plain_arrays(reviews))
    for start in range(1, MAX_STARTS + 1):
        assignment = Assignment(
            model_params,
            params,
            cluster.versions,
            collect_numerics(params),
            checkpoint.fingerprint if checkpoint else "in memory",
            driver.files,
            minutes,
        )
        try:
            outcome = driver.run(assignment, shared_reviews)
        except LostRankError as error:
            logger.warning(f"Ray: {error}; start {start} of {MAX_STARTS} ended, the last checkpoint remains")
        else:
            return _build_result(outcome, model_params, reviews.vocabulary_size)
    raise UserError(f"train: ranks died in each of {MAX_STARTS} starts; repeat the same command to resume")


class _Driver:
    """The driver of one training: what it has received from the ranks, also of earlier starts.

    Attributes:
        files: files of the last checkpoint.
    """

    def __init__(
        self,
        cluster: Cluster,
        needs: Needs,
        on_epoch: Callable[[EpochMetrics], None],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._cluster, self._needs, self._on_epoch = cluster, needs, on_epoch
        self._folder = checkpoint.folder if checkpoint else None
        self._reported = {epoch.epoch for epoch in checkpoint.epochs} if checkpoint else set()
        self.files: dict[str, bytes] = _read_files(self._folder) if self._folder else {}

    def run(self, assignment: Assignment, reviews: Any) -> Outcome:
        """Run all ranks until they have ended; return the outcome of rank 0.

        Raises:
            LostRankError: a rank died.
            UserError: a rank raised it.
        """
        inbox = self._start_inbox()
        with self._reserve(assignment.train.ranks) as group:
            tasks = [
                ray.remote(_train_rank)
                .options(
                    max_retries=0,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
                    **self._needs.to_options(),
                )
                .remote(assignment, Ranks(rank, assignment.train.ranks), reviews, inbox)
                for rank in range(assignment.train.ranks)
            ]
            try:
                return self._receive(tasks, inbox)
            finally:
                for task in tasks:
                    with suppress(RayError):
                        ray.cancel(task, force=True)
                with suppress(RayError):
                    self._handle(ray.get(inbox.take.remote()))
                ray.kill(inbox)

    def _start_inbox(self) -> Any:
        here = NodeAffinitySchedulingStrategy(self._cluster.driver_node, soft=False)
        return ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=here).remote()

    @contextmanager
    def _reserve(self, ranks: int) -> Iterator[Any]:
        """Reserve places for all ranks; wait until the cluster has them."""
        place = {"CPU": self._needs.cpus, "GPU": self._needs.gpus, "memory": self._needs.memory}
        group = placement_group([{name: amount for name, amount in place.items() if amount}] * ranks)
        try:
            if not group.wait(10):
                logger.info(f"Ray: waiting for {ranks} free places with {self._needs} each")
                ray.get(group.ready())
            yield group
        finally:
            remove_placement_group(group)

    def _receive(self, tasks: Sequence[Any], inbox: Any) -> Outcome:
        """Handle messages until all tasks have ended or one has failed."""
        running = list(tasks)
        while running:
            ended, running = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
            self._handle(ray.get(inbox.take.remote()))
            failed = [error for error in map(_get_error, ended) if error]
            if failed:
                # The others notice it at their next step, and the first to fail may not be the cause.
                if running:
                    ended, _ = ray.wait(running, num_returns=len(running), timeout=GRACE_SECONDS)
                    failed += [error for error in map(_get_error, ended) if error]
                causes = [error for error in failed if not isinstance(error, LostRankError)]
                raise (causes or failed)[0]
        self._handle(ray.get(inbox.take.remote()))
        outcome: Outcome = ray.get(tasks[0])
        return outcome

    def _handle(self, messages: Sequence[EpochMetrics | Files]) -> None:
        for message in messages:
            if isinstance(message, Files):
                files = {**self.files, **message.changed}
                self.files = {name: content for name, content in files.items() if name in message.names}
                if self._folder:
                    _write_files(self._folder, message)
            elif message.epoch not in self._reported:
                self._reported.add(message.epoch)
                self._on_epoch(message)


def _get_error(task: Any) -> Exception | None:
    """Return the error of a task that has ended, or None."""
    try:
        ray.get(task)
    except RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, UserError) else error
    except RayError as error:
        return LostRankError(f"a rank died ({type(error).__name__})")
    return None


def _train_rank(assignment: Assignment, ranks: Ranks, reviews: TrainingData, inbox: Any) -> Outcome | None:
    """Train as one rank, in a task on a node; return the outcome on rank 0."""
    silence()
    require_versions(assignment.versions)
    _require_numerics(assignment)
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
        checkpoint = _SentCheckpoint(Path(folder), assignment.fingerprint, assignment.minutes, inbox)
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


def _require_numerics(assignment: Assignment) -> None:
    """Require that a node computes on the same kind of device as the driver."""
    found = collect_numerics(assignment.train)
    for name in OWN_NUMERICS:
        if found[name] != assignment.numerics[name]:
            raise UserError(
                f"Ray: a node trains with {name} {found[name]}, the driver with {assignment.numerics[name]}; "
                f"set train.{name}, or run the driver on a node that is like those that train"
            )


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


class _SentCheckpoint(Checkpoint):
    """A checkpoint in a temporary folder of a node, each state of which is sent to the driver."""

    def __init__(self, folder: Path, fingerprint: str, minutes: float, inbox: Any, name: str = "") -> None:
        super().__init__(folder / name, f"{fingerprint}/{name}" if name else fingerprint, minutes)
        self._root, self._minutes, self._inbox = folder, minutes, inbox
        self._sent: dict[str, int] = {}

    def open_nested(self, name: str) -> Checkpoint:
        """Open the checkpoint of one of several trainings that this run consists of, in a subfolder."""
        return _SentCheckpoint(self._root, self.fingerprint, self._minutes, self._inbox, name)

    def save(self, state: TrainingState) -> None:
        """Save the state and send it to the driver."""
        super().save(state)
        times = {name: path.stat().st_mtime_ns for name, path in _list_files(self._root).items()}
        changed = [name for name, modified in times.items() if self._sent.get(name) != modified]
        content = {name: (self._root / name).read_bytes() for name in changed}
        ray.get(self._inbox.send.remote(Files(content, frozenset(times))))
        self._sent = times


def _list_files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint and its nested ones, by relative path; a state after its weights."""
    paths = sorted(folder.rglob("*.safetensors"), key=lambda path: (path.name == STATE_FILE, path))
    complete = [path for path in paths if not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path for path in complete}


def _read_files(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in _list_files(folder).items()}


def _write_files(folder: Path, files: Files) -> None:
    """Write the files of a checkpoint, such that a kill at any moment leaves one that can be resumed."""
    for name, content in files.changed.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    for name, path in _list_files(folder).items():
        if name not in files.names:
            path.unlink()


def _build_result(outcome: Outcome, params: ModelParams, vocabulary_size: int) -> TrainingResult:
    weights = load(outcome.weights)
    branch = NGramBranch(params.ngrams.order, len(weights["ngrams.weights"])) if params.ngrams else None
    model = SentimentClassifier(params, vocabulary_size, branch)
    model.load_state_dict(weights)
    epochs = list(outcome.epochs)
    return TrainingResult(model.eval(), epochs, epochs[outcome.best], outcome.logits)


def _to_plain_arrays(reviews: TrainingData) -> TrainingData:
    """Return the reviews in numpy's own arrays, which Ray shares between tasks; it would copy memory maps."""

    def convert(tokens: TokenizedReviews) -> TokenizedReviews:
        ids, offsets, labels = (np.asarray(array) for array in (tokens.ids, tokens.offsets, tokens.labels))
        return replace(tokens, ids=ids, offsets=offsets, labels=labels)

    return TrainingData(
        reviews.vocabulary_size, *map(convert, (reviews.train, reviews.validation, reviews.unlabelled))
    )
