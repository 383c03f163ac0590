"""What training tells about itself, epoch by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.metrics import roc_auc_score

from sentiment.training.clipping import Clipped
from sentiment.training.health import Health, layer_health


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
