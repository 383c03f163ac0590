"""Metrics of an epoch, and intermediate evaluations within one."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.metrics import roc_auc_score

from sentiment.model.classifier import SentimentClassifier, predict_logits
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.clipping import ClippingResult
from sentiment.training.gradients import GradientDiagnostics, compute_layer_diagnostics, require_finite


@dataclass(frozen=True)
class EpochMetrics:
    """Figures of one epoch; losses are mean binary cross-entropy in nats per review."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the epoch's steps, dropout on, weights as they were at each step."""
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_auc: float
    learning_rate: float
    """At the epoch's last step."""
    tokens_per_second: float
    """Tokens read without padding, over the whole epoch but its validation."""
    gradient_norm_median: float
    """L2 norm over all gradients, before clipping."""
    gradient_norm_p95: float
    gradient_norm_max: float
    clipping_rate: float
    """Share of steps whose gradient clipping changed."""
    clipping_scale_mean: float
    """What clipping multiplied the gradient's norm with, mean over all steps; 1 where it left it alone."""
    gradients: GradientDiagnostics

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: loss {self.train_loss:.4f}, validation loss {self.validation_loss:.4f}, "
            f"validation AUC {self.validation_auc:.4f}, {self.tokens_per_second / 1000:.0f}k tokens/s"
        )


@dataclass(frozen=True)
class StepMetrics:
    """What one optimizer step saw and did."""

    loss: float
    """Mean over the batch."""
    correct: int
    reviews: int
    tokens: int
    clipped: ClippingResult
    learning_rate: float
    gradient_norms: dict[str, float]
    """L2 norm of the gradient by layer, before clipping."""
    update_ratios: dict[str, float]
    """What the step changed of each layer's weights; empty where that was not measured."""


def compute_epoch_metrics(
    epoch: int,
    steps: Sequence[StepMetrics],
    seconds: float,
    logits: NDArray[np.float32],
    labels: NDArray[np.int8],
    gate_saturation: dict[str, dict[str, float]],
) -> EpochMetrics:
    """Sum up an epoch: its steps, their seconds, the validation logits after them, shape (reviews,).

    gate_saturation: by LSTM layer and gate, after the epoch.
    """
    reviews = sum(step.reviews for step in steps)
    norms = np.array([step.clipped.norm for step in steps])
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
        clipping_rate=float(np.mean([step.clipped.changed for step in steps])),
        clipping_scale_mean=float(np.mean([step.clipped.scale for step in steps])),
        gradients=GradientDiagnostics(
            compute_layer_diagnostics(
                [step.gradient_norms for step in steps],
                [step.update_ratios for step in steps if step.update_ratios],
            ),
            gate_saturation,
        ),
    )


SAMPLE = 250
"""Reviews that a check looks at, a sixth of those that steer a default trial."""


@dataclass(frozen=True)
class IntermediateEvaluation:
    """One look."""

    evaluation_index: int
    """From 1, over all epochs."""
    optimizer_steps: int
    """Optimizer steps taken so far."""
    planned_steps: int
    """Those of the whole training."""
    intermediate_auc: float
    """On the sample, at the end of an epoch too, so that all checks of a training measure one thing."""
    ends_epoch: bool


@dataclass(frozen=True)
class EvaluationSchedule:
    """How many intermediate evaluations an epoch has, and the callback that receives each of them.

    Attributes:
        evaluations_per_epoch: evenly spaced over the epoch's steps; the last one is at its end.
        on_evaluation: is called before the checkpoint of that step is written. A run that resumes from an
            earlier checkpoint therefore repeats the evaluations since then, and none is lost. The last
            evaluation of an epoch is reported before the epoch's metrics. An exception that the callback
            raises ends the training.
    """

    evaluations_per_epoch: int
    on_evaluation: Callable[[IntermediateEvaluation], None]


class IntermediateEvaluator:
    """The checks of one training. They change nothing in it: no weight, no random number."""

    def __init__(
        self,
        schedule: EvaluationSchedule,
        model: SentimentClassifier,
        validation: TokenizedReviews,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        """Choose the reviews to look at."""
        self._schedule = schedule
        self._steps_per_epoch = steps_per_epoch
        self._planned_steps = epochs * steps_per_epoch
        # Once per epoch costs nothing: all reviews are scored then.
        size = SAMPLE if schedule.evaluations_per_epoch > 1 else len(validation)
        self._rows = sample_rows(np.asarray(validation.labels), size)
        self._reviews = validation.take(self._rows)
        self._ngrams = model.extract_ngrams(self._reviews) if schedule.evaluations_per_epoch > 1 else None
        # A number stands for a share of the training, whatever the batch size: of an epoch with few steps,
        # some numbers fall out.
        parts = range(1, schedule.evaluations_per_epoch)
        at = {math.ceil(steps_per_epoch * part / schedule.evaluations_per_epoch): part for part in parts}
        self._at = {step: part for step, part in at.items() if step < steps_per_epoch}

    def evaluate_if_due(self, model: SentimentClassifier, epoch: int, step: int) -> float:
        """Score the sample and tell, if there is a check after this step of the epoch; return the seconds.

        model: with the weights after the step. Raises TrainingDivergedError where a score is not finite.
        """
        if step not in self._at:
            return 0.0
        started = time.perf_counter()
        logits = predict_logits(model, self._reviews, "check", self._ngrams)
        require_finite(logits, model, f"the check after step {step} of epoch {epoch}")
        self._tell(epoch, step, self._at[step], logits)
        return time.perf_counter() - started

    def evaluate_epoch_end(self, epoch: int, logits: NDArray[np.float32]) -> None:
        """Tell the epoch's last check; logits: of all validation reviews, shape (reviews,)."""
        self._tell(epoch, self._steps_per_epoch, self._schedule.evaluations_per_epoch, logits[self._rows])

    def _tell(self, epoch: int, step: int, part: int, logits: NDArray[np.float32]) -> None:
        number = (epoch - 1) * self._schedule.evaluations_per_epoch + part
        steps = (epoch - 1) * self._steps_per_epoch + step
        auc = float(roc_auc_score(np.asarray(self._reviews.labels) == 1, logits))
        ends_epoch = part == self._schedule.evaluations_per_epoch
        self._schedule.on_evaluation(
            IntermediateEvaluation(number, steps, self._planned_steps, auc, ends_epoch)
        )


def sample_rows(labels: NDArray[np.int8], size: int) -> NDArray[np.int64]:
    """Return the rows, in order, of at most `size` reviews, evenly spaced, half of them of each label."""
    if len(labels) <= size:
        return np.arange(len(labels))
    of_label = [np.flatnonzero(labels == label) for label in (0, 1)]
    counts = [min(size // 2, len(rows)) for rows in of_label]
    spaced = [
        rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
        for rows, count in zip(of_label, counts, strict=True)
    ]
    return np.sort(np.concatenate(spaced))
