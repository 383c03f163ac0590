"""This project's own training as stages/train.py does it: all of params.yaml, a run in an MLflow store."""

import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.training.phases import timed_calls
from bench.training.task import Task
from sentiment.lineage import log_configuration, origin_of
from sentiment.tracking import open_store, start_run
from sentiment.training import loop
from sentiment.training.epoch_metrics import EpochMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochCost:
    """What an epoch reported, and its duration in seconds without scoring.

    seconds: data, steps and logging. since_last: all since the last epoch, before the first one since the
    start: so also learning the n-grams, making the model, gate saturation, keeping the best weights.
    """

    epoch: EpochMetrics
    seconds: float
    since_last: float


class ReachedError(Exception):
    """Ends a training that is good enough."""


def train_logged(task: Task, folder: Path, target: float = math.inf) -> list[EpochCost]:
    """Train with params.yaml, logging to a sqlite store in a folder; return the cost of each epoch.

    Training ends early with the epoch whose validation AUC reaches the target.
    """
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    tokens = task.tokens(np.arange(len(task.reviews.train)))
    costs: list[EpochCost] = []
    with start_run(open_store(), "train", "bench") as run, timed_calls(loop, "predict_logits") as scoring:
        begun = time.perf_counter()
        log_configuration(run, task.params, task.reviews, origin_of(task.params, task.reviews))

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
            loop.fit(params.model, params.train, task.reviews, on_epoch)
        except ReachedError:
            run.tag({"ended": f"validation AUC {target}"})
    return costs
