"""The training of a trial. This module needs neither MLflow nor Optuna, so that workers of Ray start fast."""

from collections.abc import Sequence
from typing import Protocol

from sentiment.params import Params
from sentiment.tokens.batches import TrainingData
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, EvaluationSchedule, IntermediateEvaluation
from sentiment.training.loop import TrainingResult
from sentiment.training.self_training import fit_with_self_training


class Reports(Protocol):
    """Receives what a training reports. An exception that a method raises ends the training."""

    def log_restored_epochs(self, epochs: Sequence[EpochMetrics]) -> None:
        """Receive the epochs of the checkpoint from which the training resumes; maybe none."""

    def on_evaluation(self, evaluation: IntermediateEvaluation) -> None:
        """Receive an intermediate evaluation."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Receive the metrics of an epoch."""


def fit_trial(
    params: Params, reviews: TrainingData, number: int, checkpoint: Checkpoint | None, reports: Reports
) -> TrainingResult:
    """Report the epochs of the checkpoint, then start or resume the training of a trial in this process.

    Args:
        params: parameters with the values of the trial.
        reviews: training data.
        number: trial number, for messages.
        checkpoint: checkpoint of the training; None trains without one.
        reports: receives the metrics.
    """
    reports.log_restored_epochs(checkpoint.epochs if checkpoint else [])
    return fit_with_self_training(
        params.model,
        params.train,
        reviews,
        reports.on_epoch,
        f"trial {number}",
        checkpoint,
        EvaluationSchedule(params.tune.evaluations_per_epoch, reports.on_evaluation),
    )
