"""Metrics of an epoch, and intermediate evaluations within one."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.metrics import roc_auc_score

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.scoring import score
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.clipping import Clipped
from sentiment.training.gradients import Health, layer_health, require_finite


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; losses are mean binary cross-entropy in nats per review."""

    number: int
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
    clipped_share: float
    """Share of steps whose gradient clipping changed."""
    clip_scale_mean: float
    """What clipping multiplied the gradient's norm with, mean over all steps; 1 where it left it alone."""
    health: Health

    def __str__(self) -> str:
        return (
            f"epoch {self.number}: loss {self.train_loss:.4f}, validation loss {self.validation_loss:.4f}, "
            f"validation AUC {self.validation_auc:.4f}, {self.tokens_per_second / 1000:.0f}k tokens/s"
        )


@dataclass(frozen=True)
class Step:
    """What one optimizer step saw and did."""

    loss: float
    """Mean over the batch."""
    correct: int
    reviews: int
    tokens: int
    clipped: Clipped
    learning_rate: float
    gradient_norms: dict[str, float]
    """L2 norm of the gradient by layer, before clipping."""
    update_ratios: dict[str, float]
    """What the step changed of each layer's weights; empty where that was not measured."""


def epoch_figures(
    number: int,
    steps: Sequence[Step],
    seconds: float,
    logits: NDArray[np.float32],
    labels: NDArray[np.int8],
    gate_saturation: dict[str, dict[str, float]],
) -> Epoch:
    """Sum up an epoch: its steps, their seconds, the validation logits after them, shape (reviews,).

    gate_saturation: by LSTM layer and gate, after the epoch.
    """
    reviews = sum(step.reviews for step in steps)
    norms = np.array([step.clipped.norm for step in steps])
    positive = np.asarray(labels) == 1
    return Epoch(
        number=number,
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
        clipped_share=float(np.mean([step.clipped.changed for step in steps])),
        clip_scale_mean=float(np.mean([step.clipped.scale for step in steps])),
        health=Health(
            layer_health(
                [step.gradient_norms for step in steps],
                [step.update_ratios for step in steps if step.update_ratios],
            ),
            gate_saturation,
        ),
    )


SAMPLE = 250
"""Reviews that a check looks at, a sixth of those that steer a default trial."""


@dataclass(frozen=True)
class Check:
    """One look."""

    number: int
    """From 1, over all epochs."""
    steps: int
    """Optimizer steps taken so far."""
    planned_steps: int
    """Those of the whole training."""
    validation_auc: float
    """On the sample, at the end of an epoch too, so that all checks of a training measure one thing."""
    ends_epoch: bool


@dataclass(frozen=True)
class Checks:
    """How often to look, and whom to tell.

    on_check: gets each check before the checkpoint of its step is written, so that a run that goes on from an
    earlier one tells again what was not kept, and nothing is lost. An exception that it raises ends the
    training. Of the last check of an epoch it hears before that epoch's figures are told.
    """

    per_epoch: int
    on_check: Callable[[Check], None]


class Checker:
    """The checks of one training. They change nothing in it: no weight, no random number."""

    def __init__(
        self,
        checks: Checks,
        model: SentimentClassifier,
        validation: TokenizedReviews,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        """Choose the reviews to look at."""
        self._checks = checks
        self._steps_per_epoch = steps_per_epoch
        self._planned_steps = epochs * steps_per_epoch
        # Once per epoch costs nothing: all reviews are scored then.
        size = SAMPLE if checks.per_epoch > 1 else len(validation)
        self._rows = sample_rows(np.asarray(validation.labels), size)
        self._reviews = validation.take(self._rows)
        self._ngrams = model.find_ngrams(self._reviews) if checks.per_epoch > 1 else None
        # A number stands for a share of the training, whatever the batch size: of an epoch with few steps,
        # some numbers fall out.
        parts = range(1, checks.per_epoch)
        at = {math.ceil(steps_per_epoch * part / checks.per_epoch): part for part in parts}
        self._at = {step: part for step, part in at.items() if step < steps_per_epoch}

    def look_when_due(self, model: SentimentClassifier, epoch: int, step: int) -> float:
        """Score the sample and tell, if there is a check after this step of the epoch; return the seconds.

        model: with the weights after the step. Raises TrainingDivergedError where a score is not finite.
        """
        if step not in self._at:
            return 0.0
        started = time.perf_counter()
        logits = score(model, self._reviews, "check", self._ngrams)
        require_finite(logits, model, f"the check after step {step} of epoch {epoch}")
        self._tell(epoch, step, self._at[step], logits)
        return time.perf_counter() - started

    def end_epoch(self, epoch: int, logits: NDArray[np.float32]) -> None:
        """Tell the epoch's last check; logits: of all validation reviews, shape (reviews,)."""
        self._tell(epoch, self._steps_per_epoch, self._checks.per_epoch, logits[self._rows])

    def _tell(self, epoch: int, step: int, part: int, logits: NDArray[np.float32]) -> None:
        number = (epoch - 1) * self._checks.per_epoch + part
        steps = (epoch - 1) * self._steps_per_epoch + step
        auc = float(roc_auc_score(np.asarray(self._reviews.labels) == 1, logits))
        ends_epoch = part == self._checks.per_epoch
        self._checks.on_check(Check(number, steps, self._planned_steps, auc, ends_epoch))


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
