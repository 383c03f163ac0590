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
    """From 1."""
    train_loss: float
    """Mean over the epoch's steps, with dropout and with the weights of each step."""
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_auc: float
    learning_rate: float
    """At the epoch's last step."""
    tokens_per_second: float
    """Tokens without padding per second of training; validation is not included."""
    gradient_norm_median: float
    """L2 norm over all gradients together, before clipping; median over the steps."""
    gradient_norm_p95: float
    gradient_norm_max: float
    clipping_rate: float
    """Share of steps whose gradient was clipped."""
    clipping_scale_mean: float
    """Norm after clipping divided by the norm before, mean over all steps; 1 for steps without clipping."""
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
    """Mean over the batch."""
    correct: int
    """Number of reviews classified correctly."""
    reviews: int
    tokens: int
    """Without padding."""
    clipping: ClippingResult
    learning_rate: float
    gradient_norms: dict[str, float]
    """L2 norm of the gradient by layer, before clipping."""
    update_ratios: dict[str, float]
    """Norm of the update divided by that of the weights, by layer; empty if not measured at this step."""


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
        epoch: from 1.
        steps: metrics of the epoch's steps, in order.
        seconds: duration of these steps.
        logits: of the validation reviews after the last step, shape (reviews,).
        labels: of the validation reviews, 0 or 1, shape (reviews,).
        gate_saturation: share of saturated gate values by LSTM layer and gate, after the last step.
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
"""Differs between runs with equal results, so it is logged to MLflow and not written to DVC's files."""

DECIMALS = 6


def build_training_metrics(epochs: Sequence[EpochMetrics], best: EpochMetrics) -> dict[str, Any]:
    """Return the number of epochs and the metrics of the best one, for `metrics/train.json`."""
    return {"epochs": len(epochs), "best": _select_reproducible(best)}


def build_history_table(epochs: Sequence[EpochMetrics]) -> pd.DataFrame:
    """Return one row per epoch, without the metrics by layer, see `build_gradients_table`."""
    return pd.DataFrame([_select_reproducible(epoch) for epoch in epochs])


def build_gradients_table(epochs: Sequence[EpochMetrics]) -> pd.DataFrame:
    """Return one row per epoch and layer, with its gradient diagnostics."""
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
"""Validation reviews of an intermediate evaluation, 1/6 of those that rank the trials of a default search."""


@dataclass(frozen=True)
class IntermediateEvaluation:
    """Result of one evaluation within a training run."""

    evaluation_index: int
    """From 1, over all epochs."""
    optimizer_steps: int
    """Number of optimizer steps taken so far."""
    planned_steps: int
    """Number of optimizer steps of the whole training run."""
    intermediate_auc: float
    """Validation AUC on the sample. At the end of an epoch too, so that all evaluations are comparable."""
    ends_epoch: bool


@dataclass(frozen=True)
class EvaluationSchedule:
    """How many intermediate evaluations an epoch has, and the callback that receives each of them.

    Attributes:
        evaluations_per_epoch: evenly spaced over the epoch's steps; the last one is at its end.
        on_evaluation: is called before the checkpoint of that step is written. A run that resumes from an
            earlier checkpoint therefore evaluates the same steps again, and no result is lost. The last
            evaluation of an epoch is reported before the epoch's metrics. An exception that the callback
            raises ends the training.
    """

    evaluations_per_epoch: int
    on_evaluation: Callable[[IntermediateEvaluation], None]


class IntermediateEvaluator:
    """Runs the intermediate evaluations of a training run. They affect neither weights nor random numbers."""

    def __init__(
        self,
        schedule: EvaluationSchedule,
        model: SentimentClassifier,
        validation: TokenizedReviews,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        """Draw the sample of validation reviews and find their n-grams."""
        self._schedule = schedule
        self._steps_per_epoch = steps_per_epoch
        self._planned_steps = epochs * steps_per_epoch
        per_epoch = schedule.evaluations_per_epoch
        # One evaluation per epoch uses the logits of the epoch's validation, which scores all reviews.
        size = SAMPLE_SIZE if per_epoch > 1 else len(validation)
        self._rows = sample_rows(np.asarray(validation.labels), size)
        self._reviews = validation.take(self._rows)
        self._ngrams = model.extract_ngrams(self._reviews) if per_epoch > 1 else None
        # An index stands for the same fraction of the training at every batch size, so that trials can be
        # compared. An epoch with fewer steps than evaluations skips some indices.
        positions = {math.ceil(steps_per_epoch * index / per_epoch): index for index in range(1, per_epoch)}
        self._index_after_step = {step: index for step, index in positions.items() if step < steps_per_epoch}

    def evaluate_if_due(self, model: SentimentClassifier, epoch: int, step: int) -> float:
        """Evaluate the sample and report the result, if an evaluation is due after this step.

        Args:
            model: with the weights after the step.
            epoch: from 1.
            step: number of steps taken in this epoch.

        Returns:
            Duration in seconds, 0 if no evaluation is due.

        Raises:
            TrainingDivergedError: if a logit is not finite.
        """
        if step not in self._index_after_step:
            return 0.0
        started = time.perf_counter()
        logits = predict_logits(model, self._reviews, "intermediate evaluation", self._ngrams)
        require_finite(logits, model, f"intermediate evaluation after step {step} of epoch {epoch}")
        self._report(epoch, step, self._index_after_step[step], logits)
        return time.perf_counter() - started

    def evaluate_epoch_end(self, epoch: int, logits: NDArray[np.float32]) -> None:
        """Report the last evaluation of an epoch; logits: of all validation reviews, shape (reviews,)."""
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
    """Return the sorted rows of at most `size` reviews, evenly spaced, half of them of each label."""
    if len(labels) <= size:
        return np.arange(len(labels))
    rows_by_label = [np.flatnonzero(labels == label) for label in (0, 1)]
    counts = [min(size // 2, len(rows)) for rows in rows_by_label]
    spaced = [
        rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
        for rows, count in zip(rows_by_label, counts, strict=True)
    ]
    return np.sort(np.concatenate(spaced))
