"""Training on a Ray cluster: this process is the driver, and each rank is a task on a node.

The driver, which holds the MLflow run and the checkpoint, passes the reviews through the object store and
gets epochs and checkpoints from rank 0. Ray Train would call back in a process of its own, and needs storage
that all nodes share for its checkpoints; so the ranks are plain tasks in a placement group.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from safetensors.torch import load

from sentiment.cluster.connection import Cluster
from sentiment.cluster.resources import Needs
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramBranch
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import collect_numerics
from sentiment.training.launch import GRACE_SECONDS, MAX_STARTS
from sentiment.training.loop import TrainingResult
from sentiment.training.ranks import LostRankError, Ranks
from sentiment.training.ray_rank import (
    POLL_SECONDS,
    Assignment,
    Files,
    Inbox,
    Message,
    NumericDifferences,
    Outcome,
    list_files,
    train_rank,
)

logger = logging.getLogger(__name__)


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
    shared_reviews = ray.put(reviews.select_for_cluster(unlabelled=params.unlabelled != "ignore"))
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
        self._differing: set[NumericDifferences] = set()
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
                ray.remote(train_rank)
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
                try:
                    with suppress(RayError):
                        self._handle(ray.get(inbox.take.remote()))
                finally:
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

    def _handle(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, Files):
                files = {**self.files, **message.changed}
                self.files = {name: content for name, content in files.items() if name in message.names}
                if self._folder:
                    _write_files(self._folder, message)
            elif isinstance(message, NumericDifferences):
                if message not in self._differing:
                    self._differing.add(message)
                    logger.warning(
                        f"Ray: the last digits of results may differ on a node: {message.description}"
                    )
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


def _read_files(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_files(folder).items()}


def _write_files(folder: Path, files: Files) -> None:
    """Write the files of a checkpoint, such that a kill at any moment leaves one that can be resumed."""
    for name, content in files.changed.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    for name, path in list_files(folder).items():
        if name not in files.names:
            path.unlink()


def _build_result(outcome: Outcome, params: ModelParams, vocabulary_size: int) -> TrainingResult:
    weights = load(outcome.weights)
    branch = NGramBranch(params.ngrams.order, len(weights["ngrams.weights"])) if params.ngrams else None
    model = SentimentClassifier(params, vocabulary_size, branch)
    model.load_state_dict(weights)
    epochs = list(outcome.epochs)
    return TrainingResult(model.eval(), epochs, epochs[outcome.best], outcome.logits)
