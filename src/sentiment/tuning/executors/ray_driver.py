"""What the threads of a driver on a Ray cluster share: the search, the cluster and its places."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sentiment.cluster.connection import Cluster
from sentiment.cluster.resources import Needs
from sentiment.params import Params
from sentiment.settings import Settings
from sentiment.training.fingerprint import TrainingFingerprint, compare_numerics
from sentiment.tuning.executors.remote_training import (
    Assignment,
    Mailbox,
    Message,
    Outcome,
    Started,
    train_on_node,
)
from sentiment.tuning.executors.shared_checkpoint import CheckpointStore
from sentiment.tuning.study import Search, reads_unlabelled
from sentiment.tuning.trainer import POLL_SECONDS

logger = logging.getLogger(__name__)

QUEUED_SECONDS = 30
"""Time after which a training that no node has started counts as queued, so that one that waits for its
reports makes way. A worker takes some of it to start."""


class Driver:
    """What the threads of the driver share.

    Attributes:
        search: search whose trials run.
        places: number of trials that fit on the cluster at present, at most `tune.max_parallel`.
        stopping: set when all threads have to end.
    """

    def __init__(
        self, search: Search, cluster: Cluster, needs: Needs, settings: Settings, reviews: Any, mailbox: Any
    ) -> None:
        self.search = search
        self.stopping = threading.Event()
        self._cluster, self._needs, self._settings = cluster, needs, settings
        self._reviews, self._mailbox = reviews, mailbox
        self._queued: dict[int, float] = {}
        """Since when a trial waits for a place, by its number."""
        self._differing: set[str] = set()
        self.places = 0
        self.count_places()

    @classmethod
    def start(cls, search: Search, cluster: Cluster, needs: Needs, settings: Settings) -> "Driver":
        """Put the reviews into the object store, from which each node takes them once; start the mailbox."""
        shared = search.reviews.select_for_cluster(unlabelled=reads_unlabelled(search.params))
        here = NodeAffinitySchedulingStrategy(cluster.driver_node, soft=False)
        mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        return cls(search, cluster, needs, settings, ray.put(shared), mailbox)

    def count_places(self) -> None:
        """Count the places of the cluster."""
        most = self.search.params.tune.max_parallel
        places = min(most, self._cluster.count_slots(self._needs))
        if places != self.places:
            logger.info(
                f"Ray: up to {places} trials run at the same time"
                if places
                else f"Ray: waiting for a node with {self._needs}"
            )
        self.places = places

    def assign(self, number: int, params: Params) -> "Task":
        """Start the training of a trial on a node, as soon as one has a place."""
        assignment = Assignment(
            channel=f"{number}-{uuid4().hex}",
            number=number,
            params=params,
            versions=self._cluster.versions,
            checkpoint=self._get_checkpoint(f"trial-{number}"),
            checkpoint_minutes=self._settings.checkpoint_minutes,
        )
        self._queued[number] = time.monotonic()
        function = ray.remote(train_on_node).options(max_retries=0, **self._needs.to_options())
        reference = function.remote(assignment, self._reviews, self._mailbox)
        return Task(reference, self._mailbox, assignment.channel)

    def note_start(self, number: int, started: Started, key: TrainingFingerprint) -> None:
        """Note that a node has started a training; warn if it rounds sums in another way than the driver."""
        self._queued.pop(number, None)
        differences = compare_numerics(started.numerics, key.numerics)
        if differences and differences not in self._differing:
            self._differing.add(differences)
            logger.warning(f"Ray: the last digits of results may differ on a node: {differences}")

    def note_end(self, number: int) -> None:
        """Note that a training has ended."""
        self._queued.pop(number, None)

    def has_queued(self, numbers: Sequence[int]) -> bool:
        """Return whether one of these trials has been waiting for a place for `QUEUED_SECONDS`."""
        latest = time.monotonic() - QUEUED_SECONDS
        return any(self._queued.get(number, time.monotonic()) < latest for number in numbers)

    def list_nodes(self) -> set[str]:
        """Return the ids of the nodes that are alive."""
        return {node.id for node in self._cluster.list_nodes()}

    def wait(self) -> None:
        """Wait `POLL_SECONDS`.

        Raises:
            KeyboardInterrupt: the search ends.
        """
        if self.stopping.wait(POLL_SECONDS):
            raise KeyboardInterrupt

    def delete_checkpoints(self, folder: str = "") -> None:
        """Delete a folder of the search in the checkpoint store, by default all of them."""
        address = self._get_checkpoint(folder)
        if address:
            try:
                CheckpointStore.open(address).delete()
            except Exception as error:  # each file system of fsspec has exceptions of its own
                logger.warning(f"the checkpoint store is not cleaned: {type(error).__name__}")

    def _get_checkpoint(self, folder: str) -> str | None:
        store = self._settings.ray_checkpoints
        if store is None:
            return None
        parts = (store.get_secret_value().rstrip("/"), self.search.name, self.search.study_id, folder)
        return "/".join(filter(None, parts))


class TaskLost(Exception):  # noqa: N818
    """The worker of a task died."""


class Task:
    """A task on the cluster, as the driver's thread sees it."""

    def __init__(self, reference: Any, mailbox: Any, channel: str) -> None:
        self._reference, self._mailbox, self._channel = reference, mailbox, channel
        self._answer: bool | None = None
        self._ended = False

    def receive(self, stopping: threading.Event) -> Message | None:
        """Let the task continue if it waits for an answer, and wait for the next; None: the task has ended.

        Raises:
            KeyboardInterrupt: the search ends.
        """
        incoming = self._mailbox.receive.remote(self._channel, self._answer)
        self._answer = True
        while not stopping.is_set():
            ready, _ = ray.wait([incoming, self._reference], num_returns=1, timeout=0.5)
            if incoming in ready:
                message: Message = ray.get(incoming)
                return message
            if ready:
                self._ended = True
                return None
        raise KeyboardInterrupt

    def get_outcome(self) -> Outcome:
        """Return the outcome of a task that has ended.

        Raises:
            TaskLost: its worker died.
        """
        try:
            outcome: Outcome = ray.get(self._reference)
        except RayTaskError:  # an error in the code, whose traceback is worth printing
            raise
        except OutOfMemoryError as error:
            raise RuntimeError(f"out of memory: {str(error).splitlines()[0]}") from None
        except RayError as error:
            raise TaskLost(type(error).__name__) from None
        return outcome

    def stop(self, seconds: float) -> None:
        """End the task: by an answer if it asks for one within some seconds, else by killing its worker."""
        with suppress(RayError):
            self._mailbox.close.remote(self._channel)
            if not self._ended:
                ended, _ = ray.wait([self._reference], timeout=seconds)
                if not ended:
                    ray.cancel(self._reference, force=True)
