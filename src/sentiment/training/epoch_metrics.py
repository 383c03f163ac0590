"""Metrics of an epoch, and intermediate evaluations within one."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.metrics import roc_auc_score

from sentiment.model.classifier import SentimentClassifier, predict_logits
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.clipping import ClippingResult
from sentiment.training.gradients import GradientDiagnostics, compute_layer_diagnostics, require_finite


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch. Losses are mean binary cross-entropy, in nats per review."""

    epoch: int
    """Epoch number, starting at 1."""
    train_loss: float
    """Mean loss over the epoch's steps, each with dropout and with the weights before that step."""
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_auc: float
    learning_rate: float
    """Learning rate at the last step of the epoch."""
    tokens_per_second: float
    """Training throughput: tokens without padding per second. The time of the validation does not count."""
    gradient_norm_median: float
    """Total L2 norm of all gradients, before clipping; median over the steps."""
    gradient_norm_p95: float
    gradient_norm_max: float
    clipping_rate: float
    """Fraction of steps whose gradient was clipped."""
    clipping_scale_mean: float
    """Norm after clipping divided by the norm before; mean over all steps, with 1 for unclipped steps."""
    gradients: GradientDiagnostics

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: loss {self.train_loss:.4f}, validation loss {self.validation_loss:.4f}, "
            f"validation AUC {self.validation_auc:.4f}, {self.tokens_per_second / 1000:.0f}k tokens/s"
        )


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of one optimizer step."""

    loss: float
    """Mean loss of the batch."""
    correct: int
    """Number of reviews classified correctly."""
    reviews: int
    tokens: int
    """Number of tokens, without padding."""
    clipping: ClippingResult
    learning_rate: float
    gradient_norms: dict[str, float]
    """L2 norm of each layer's gradient, before clipping."""
    update_ratios: dict[str, float]
    """Update norm divided by weight norm, for each layer; empty if not measured at this step."""


def compute_epoch_metrics(
    epoch: int,
    steps: Sequence[StepMetrics],
    seconds: float,
    logits: NDArray[np.float32],
    labels: NDArray[np.int8],
    gate_saturation: dict[str, dict[str, float]],
) -> EpochMetrics:
    """Compute the metrics of an epoch.

    Args:
        epoch: epoch number, starting at 1.
        steps: metrics of the epoch's steps, in order.
        seconds: total duration of the steps in seconds.
        logits: validation logits after the last step, shape (reviews,).
        labels: validation labels, 0 or 1, shape (reviews,).
        gate_saturation: fraction of saturated gate values after the last step, keyed by LSTM layer and gate.
    """
    reviews = sum(step.reviews for step in steps)
    norms = np.array([step.clipping.norm for step in steps])
    positive = np.asarray(labels) == 1
    return EpochMetrics(
        epoch=epoch,
        train_loss=sum(step.loss * step.reviews for step in steps) / reviews,
        train_accuracy=sum(step.correct for step in steps) / reviews,
        validation_loss=float(-log_expit(np.where(positive, logits, -logits).astype(np.float64)).mean()),
        validation_accuracy=float(np.mean((logits > 0) == positive)),
        validation_auc=float(roc_auc_score(positive, logits)),
        learning_rate=steps[-1].learning_rate,
        tokens_per_second=sum(step.tokens for step in steps) / seconds,
        gradient_norm_median=float(np.median(norms)),
        gradient_norm_p95=float(np.percentile(norms, 95)),
        gradient_norm_max=float(norms.max()),
        clipping_rate=float(np.mean([step.clipping.clipped for step in steps])),
        clipping_scale_mean=float(np.mean([step.clipping.scale for step in steps])),
        gradients=GradientDiagnostics(
            compute_layer_diagnostics(
                [step.gradient_norms for step in steps],
                [step.update_ratios for step in steps if step.update_ratios],
            ),
            gate_saturation,
        ),
    )


NOT_REPRODUCIBLE = "tokens_per_second"
"""Name of the metric that differs between otherwise identical runs. It is logged to MLflow, but not written
to DVC's metrics and plots files."""

DECIMALS = 6
"""Number of decimals of the metrics in these files."""


def build_training_metrics(epochs: Sequence[EpochMetrics], best: EpochMetrics) -> dict[str, Any]:
    """Return the number of epochs and the metrics of the best one, for `metrics/train.json`."""
    return {"epochs": len(epochs), "best": _select_reproducible(best)}


def build_history_table(epochs: Sequence[EpochMetrics]) -> pd.DataFrame:
    """Return one row per epoch; the metrics of each layer are in `build_gradients_table`."""
    return pd.DataFrame([_select_reproducible(epoch) for epoch in epochs])


def build_gradients_table(epochs: Sequence[EpochMetrics]) -> pd.DataFrame:
    """Return one row of gradient diagnostics per epoch and layer."""
    return pd.DataFrame(
        [
            {"epoch": epoch.epoch, "layer": name, **asdict(layer)}
            for epoch in epochs
            for name, layer in epoch.gradients.layers.items()
        ]
    )


def _select_reproducible(epoch: EpochMetrics) -> dict[str, Any]:
    metrics = asdict(epoch)
    del metrics[NOT_REPRODUCIBLE], metrics["gradients"]
    return {name: value if name == "epoch" else round(value, DECIMALS) for name, value in metrics.items()}


SAMPLE_SIZE = 250
"""Number of validation reviews in an intermediate evaluation: with the default parameters of the search, 1/6
of the reviews by which trials are ranked."""


@dataclass(frozen=True)
class IntermediateEvaluation:
    """Result of one evaluation within a training run."""

    evaluation_index: int
    """Number of the evaluation, starting at 1 and counted over all epochs."""
    optimizer_steps: int
    """Number of optimizer steps taken so far."""
    planned_steps: int
    """Number of optimizer steps of the whole training run."""
    intermediate_auc: float
    """Validation AUC on the sample, even at the end of an epoch, so that all evaluations are comparable."""
    ends_epoch: bool
    """True for the last evaluation of an epoch."""


@dataclass(frozen=True)
class EvaluationSchedule:
    """How many intermediate evaluations an epoch has, and the callback that receives each of them.

    Attributes:
        evaluations_per_epoch: number of evaluations, evenly spaced over the steps of an epoch; the last one
            is at the end of the epoch.
        on_evaluation: callback, called before the checkpoint of that step is written. A run that resumes from
            an earlier checkpoint therefore evaluates the same steps again, and no result is lost. The last
            evaluation of an epoch is reported before the epoch's metrics. An exception that the callback
            raises ends the training.
    """

    evaluations_per_epoch: int
    on_evaluation: Callable[[IntermediateEvaluation], None]


class IntermediateEvaluator:
    """Runs the intermediate evaluations of a training run, which change neither weights nor random states."""

    def __init__(
        self,
        schedule: EvaluationSchedule,
        model: SentimentClassifier,
        validation: TokenizedReviews,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        """Select the sample of validation reviews and extract its n-grams."""
        self._schedule = schedule
        self._steps_per_epoch = steps_per_epoch
        self._planned_steps = epochs * steps_per_epoch
        per_epoch = schedule.evaluations_per_epoch
        # A single evaluation per epoch reuses the logits of the epoch's validation, which are of all reviews.
        size = SAMPLE_SIZE if per_epoch > 1 else len(validation)
        self._rows = sample_rows(np.asarray(validation.labels), size)
        self._reviews = validation.take(self._rows)
        self._ngrams = model.extract_ngrams(self._reviews) if per_epoch > 1 else None
        # An evaluation index means the same fraction of the training at every batch size, so that trials can
        # be compared. An epoch with fewer steps than evaluations skips some indices.
        positions = {math.ceil(steps_per_epoch * index / per_epoch): index for index in range(1, per_epoch)}
        self._index_after_step = {step: index for step, index in positions.items() if step < steps_per_epoch}

    def evaluate_if_due(self, model: SentimentClassifier, epoch: int, step: int) -> float:
        """Evaluate the sample and report the result, if an evaluation is due after this step.

        Args:
            model: model with the weights after the step.
            epoch: epoch number, starting at 1.
            step: number of steps taken in this epoch.

        Returns:
            Duration of the evaluation in seconds; 0 if none is due.

        Raises:
            TrainingDivergedError: a logit is not finite.
        """
        if step not in self._index_after_step:
            return 0.0
        started = time.perf_counter()
        logits = predict_logits(model, self._reviews, "intermediate evaluation", self._ngrams)
        require_finite(logits, model, f"intermediate evaluation after step {step} of epoch {epoch}")
        self._report(epoch, step, self._index_after_step[step], logits)
        return time.perf_counter() - started

    def evaluate_epoch_end(self, epoch: int, logits: NDArray[np.float32]) -> None:
        """Report the last evaluation of an epoch.

        Args:
            epoch: epoch number, starting at 1.
            logits: logits of all validation reviews, shape (reviews,).
        """
        per_epoch = self._schedule.evaluations_per_epoch
        self._report(epoch, self._steps_per_epoch, per_epoch, logits[self._rows])

    def _report(self, epoch: int, step: int, index_in_epoch: int, logits: NDArray[np.float32]) -> None:
        per_epoch = self._schedule.evaluations_per_epoch
        evaluation = IntermediateEvaluation(
            evaluation_index=(epoch - 1) * per_epoch + index_in_epoch,
            optimizer_steps=(epoch - 1) * self._steps_per_epoch + step,
            planned_steps=self._planned_steps,
            intermediate_auc=float(roc_auc_score(np.asarray(self._reviews.labels) == 1, logits)),
            ends_epoch=index_in_epoch == per_epoch,
        )
        self._schedule.on_evaluation(evaluation)


def sample_rows(labels: NDArray[np.int8], size: int) -> NDArray[np.int64]:
    """Sample at most `size` reviews, half of them per label and evenly spaced within each label.

    Returns:
        Sorted row indices of the sampled reviews, shape (sampled,).
    """
    if len(labels) <= size:
        return np.arange(len(labels))
    rows_by_label = [np.flatnonzero(labels == label) for label in (0, 1)]
    counts = [min(size // 2, len(rows)) for rows in rows_by_label]
    sampled = [
        rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
        for rows, count in zip(rows_by_label, counts, strict=True)
    ]
    return np.sort(np.concatenate(sampled))
