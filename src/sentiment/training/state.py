"""State of a training run between two optimizer steps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sentiment.model.classifier import SentimentClassifier
from sentiment.params.train import TrainParams
from sentiment.training.clipping import GradientClipper
from sentiment.training.epoch_metrics import EpochMetrics, StepMetrics
from sentiment.training.optimization import build_optimizer

EMA_INTERVAL = 4
"""Number of steps between two updates of the exponential moving average; the first update of an epoch follows
its first step.

Each update reads and writes all weights; at every fourth step that takes 0.7% of the time (bench/README.md).
"""

EPOCHS, STEPS = TypeAdapter(list[EpochMetrics]), TypeAdapter(list[StepMetrics])


@dataclass
class TrainingState:
    """Everything that the next step depends on, and the metrics so far.

    Training runs that continue from equal states end with bitwise equal weights. The state does not contain
    the batches: their order follows from the seed, the epoch and the number of steps taken in it.
    """

    model: SentimentClassifier
    optimizer: Optimizer
    clipper: GradientClipper
    ema: AveragedModel | None
    """Exponential moving average (EMA) of the weights; None if ema_decay is 0."""
    total_epochs: int
    steps_per_epoch: int
    epochs: list[EpochMetrics] = field(default_factory=list)
    """Metrics of the completed epochs."""
    steps: list[StepMetrics] = field(default_factory=list)
    """Metrics of the steps taken in the current epoch."""
    seconds: float = 0.0
    """Total duration of the steps taken in the current epoch, in seconds."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch so far; empty before the first epoch is completed."""
    best_logits: Tensor = field(default_factory=lambda: torch.empty(0))
    """Validation logits with the best weights, shape (reviews,)."""

    @classmethod
    def create(cls, model: SentimentClassifier, params: TrainParams, steps_per_epoch: int) -> Self:
        """Create the state before the first step."""
        optimizer = build_optimizer(model.parameters(), params.optimizer)
        clipper = GradientClipper(params.clip, model.last_layer)
        ema = _build_ema(model, params.ema_decay)
        return cls(model, optimizer, clipper, ema, params.epochs, steps_per_epoch)

    @property
    def epoch(self) -> int:
        """Number of the current epoch, starting at 1."""
        return len(self.epochs) + 1

    @property
    def optimizer_steps(self) -> int:
        """Number of optimizer steps taken so far, over all epochs."""
        return len(self.epochs) * self.steps_per_epoch + len(self.steps)

    @property
    def evaluated_model(self) -> SentimentClassifier:
        """The model that is validated and saved: the one with the EMA of the weights, if there is an EMA."""
        return cast(SentimentClassifier, self.ema.module) if self.ema else self.model

    @property
    def best(self) -> EpochMetrics:
        """The first epoch with the highest validation AUC. Raises ValueError before an epoch is completed."""
        return max(self.epochs, key=lambda epoch: epoch.validation_auc)

    def describe_position(self) -> str:
        """Describe the next step, for log and error messages."""
        if len(self.epochs) == self.total_epochs:
            return f"the end of epoch {self.total_epochs}"
        if len(self.steps) == self.steps_per_epoch:
            return f"the validation of epoch {self.epoch}"
        return f"epoch {self.epoch}, step {len(self.steps) + 1} of {self.steps_per_epoch}"

    def record_step(self, step: StepMetrics, seconds: float) -> None:
        """Record a step that has updated the weights, and update the EMA if it is due.

        Args:
            step: metrics of the step.
            seconds: duration of all steps taken in the epoch so far, in seconds.
        """
        self.steps.append(step)
        self.seconds = seconds
        if self.ema and len(self.steps) % EMA_INTERVAL == 1:  # also in an epoch of a single step
            self.ema.update_parameters(self.model)

    def record_epoch(self, epoch: EpochMetrics, logits: NDArray[np.float32]) -> None:
        """Record a completed epoch, and copy its weights if it is the best one so far.

        Args:
            epoch: metrics of the epoch.
            logits: validation logits after the epoch, shape (reviews,).
        """
        self.epochs.append(epoch)
        self.steps, self.seconds = [], 0.0
        if self.best is epoch:
            weights = self.evaluated_model.state_dict()
            self.best_weights = {name: weight.clone() for name, weight in weights.items()}
            self.best_logits = torch.from_numpy(logits.copy())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as nested dictionaries of tensors and JSON values, without the best weights.

        The best weights change at most once per epoch, so a checkpoint writes them to a separate file. The
        optimizer's settings are not included either: they follow from the training parameters.
        """
        optimizer_state = self.optimizer.state_dict()["state"]
        return {
            "weights": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "optimizer": {str(position): values for position, values in optimizer_state.items()},
            "clipper": self.clipper.state_dict(),
            "best_logits": self.best_logits,
            "rng_state": torch.get_rng_state(),
            "cuda_rng_state": _get_cuda_rng_state(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "steps": [asdict(step) for step in self.steps],
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any], best_weights: Mapping[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned in a run with the same parameters."""
        self.model.load_state_dict(state["weights"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        optimizer_state = {int(position): values for position, values in state["optimizer"].items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer_state})
        self.clipper.load_state_dict(state["clipper"])
        torch.set_rng_state(state["rng_state"])
        if state["cuda_rng_state"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng_state"])
        self.best_logits = state["best_logits"]
        self.epochs = EPOCHS.validate_python(state["epochs"])
        self.steps = STEPS.validate_python(state["steps"])
        self.seconds = state["seconds"]
        self.best_weights = dict(best_weights)


def _get_cuda_rng_state() -> Tensor | None:
    """Return the state of CUDA's random number generator; None if this process does not use CUDA."""
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state() if initialized else None


def _build_ema(model: SentimentClassifier, decay: float) -> AveragedModel | None:
    """Build the exponential moving average of a model's weights; None if the decay per step is 0."""
    if decay == 0:
        return None
    ema_update = get_ema_multi_avg_fn(decay**EMA_INTERVAL)  # type: ignore[no-untyped-call]
    ema = AveragedModel(model, multi_avg_fn=ema_update)
    ema.to(model.device)  # makes the copied weights of each LSTM contiguous, as cuDNN requires
    ema.n_averaged = ema.n_averaged.cpu()  # each update reads it, which on a GPU would synchronize
    return ema
