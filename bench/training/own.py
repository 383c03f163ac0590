"""Training of this project as in stages/train.py: with params.yaml, logged to an MLflow store."""

import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.training.phases import timed_calls
from bench.training.task import Task
from sentiment.lineage import build_origin, log_configuration
from sentiment.tracking import open_store, start_run
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.loop import fit
from sentiment.training.ranks import Ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochCost:
    """The metrics of an epoch and its duration in seconds, without validation."""

    epoch: EpochMetrics
    seconds: float
    """Batches, steps and logging."""
    since_last: float
    """All since the previous epoch or the start: also the n-gram vocabulary, the construction of the model,
    gate saturation and copies of the best weights."""


class ReachedError(Exception):
    """Stops training at the target AUC."""


def train_logged(task: Task, folder: Path, target: float = math.inf) -> list[EpochCost]:
    """Train with params.yaml, log to a SQLite store in a folder, and return the cost of each epoch.

    Training stops after the epoch whose validation AUC reaches the target.
    """
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    tokens = task.tokens(np.arange(len(task.reviews.train)))
    costs: list[EpochCost] = []
    with start_run(open_store(), "train", "bench") as run, timed_calls(Ranks, "predict_logits") as scoring:
        begun = time.perf_counter()
        log_configuration(run, task.params, task.reviews, build_origin(task.params, task.reviews))

        def on_epoch(epoch: EpochMetrics) -> None:
            started = time.perf_counter()
            run.log_epoch(epoch)
            logger.info(str(epoch))
            now = time.perf_counter()
            whole = now - begun - sum(scoring) - sum(cost.since_last for cost in costs)
            costs.append(EpochCost(epoch, tokens / epoch.tokens_per_second + now - started, whole))
            if epoch.validation_auc >= target:
                raise ReachedError

        params = task.params
        try:
            fit(params.model, params.train, task.reviews, on_epoch)
        except ReachedError:
            run.tag({"ended": f"validation AUC {target}"})
    return costs
