"""Where a training run stands between two steps."""

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

AVERAGE_EVERY = 4
"""Steps of an epoch from one update of the running average to the next, from its first step on.

Each reads and writes all weights; at every fourth step they take 0.7% of the time (bench/README.md).
"""

EPOCHS, STEPS = TypeAdapter(list[EpochMetrics]), TypeAdapter(list[StepMetrics])


@dataclass
class TrainingState:
    """All that the next step depends on, and what the run has told so far.

    Equal states go on to equal weights, bit for bit. The batches are no part of it: their order follows from
    the seed, the epoch's number and how many steps of the epoch are done.
    """

    model: SentimentClassifier
    optimizer: Optimizer
    clipper: GradientClipper
    average: AveragedModel | None
    """Follows the weights' exponential average; None where there is no average."""
    epochs: list[EpochMetrics] = field(default_factory=list)
    """Figures of the epochs that are over."""
    steps: list[StepMetrics] = field(default_factory=list)
    """What the steps of the running epoch saw."""
    seconds: float = 0.0
    """What these steps took."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Of the best epoch so far; empty before the first is over."""
    best_logits: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of the validation reviews under these weights."""

    @classmethod
    def start(cls, model: SentimentClassifier, params: TrainParams) -> Self:
        """Return the state of a new model before the first step."""
        optimizer = build_optimizer(model.parameters(), params.optimizer)
        clipper = GradientClipper(params.clip, model.last_layer)
        return cls(model, optimizer, clipper, _running_average(model, params.ema_decay))

    @property
    def candidate(self) -> SentimentClassifier:
        """The model that would be kept: the averaged weights where there is an average."""
        return cast(SentimentClassifier, self.average.module) if self.average else self.model

    @property
    def best(self) -> EpochMetrics:
        """The first epoch with the highest validation AUC. Raises ValueError before one is over."""
        return max(self.epochs, key=lambda epoch: epoch.validation_auc)

    def position(self, steps_per_epoch: int, epochs: int) -> str:
        """Name the step that comes next, for a person."""
        if len(self.epochs) == epochs:
            return f"the end of epoch {epochs}"
        number, step = len(self.epochs) + 1, len(self.steps) + 1
        if step > steps_per_epoch:
            return f"the validation of epoch {number}"
        return f"epoch {number}, step {step} of {steps_per_epoch}"

    def record_step(self, step: StepMetrics, seconds: float) -> None:
        """Take in what a step saw, after it changed the weights.

        seconds: what the epoch took so far.
        """
        self.steps.append(step)
        self.seconds = seconds
        if self.average and len(self.steps) % AVERAGE_EVERY == 1:  # an epoch of a single step counts too
            self.average.update_parameters(self.model)

    def record_epoch(self, epoch: EpochMetrics, logits: NDArray[np.float32]) -> None:
        """Take in the figures of the epoch that ended, and keep its weights where they are the best.

        logits: of the validation reviews.
        """
        self.epochs.append(epoch)
        self.steps, self.seconds = [], 0.0
        if self.best is epoch:
            weights = self.candidate.state_dict()
            self.best_weights = {name: weight.clone() for name, weight in weights.items()}
            self.best_logits = torch.from_numpy(logits.copy())

    def dump(self) -> dict[str, Any]:
        """Return the state as nested dictionaries of tensors and JSON values, without the best weights.

        The best weights stay as they are for whole epochs, so that who keeps states keeps them apart. Of the
        optimizer only what it learned: its settings follow from the parameters.
        """
        learned = self.optimizer.state_dict()["state"]
        return {
            "weights": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "optimizer": {str(position): values for position, values in learned.items()},
            "clipper": self.clipper.state_dict(),
            "best_logits": self.best_logits,
            "random": torch.get_rng_state(),
            "random_on_gpu": _random_state_on_gpu(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "steps": [asdict(step) for step in self.steps],
            "seconds": self.seconds,
        }

    def load(self, content: Mapping[str, Any], best_weights: Mapping[str, Tensor]) -> None:
        """Become the state that was dumped; it must be one of the same parameters."""
        self.model.load_state_dict(content["weights"])
        if self.average:
            self.average.load_state_dict(content["average"])
        learned = {int(position): values for position, values in content["optimizer"].items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": learned})
        self.clipper.load_state_dict(content["clipper"])
        torch.set_rng_state(content["random"])
        if content["random_on_gpu"] is not None:
            torch.cuda.set_rng_state(content["random_on_gpu"])
        self.best_logits = content["best_logits"]
        self.epochs = EPOCHS.validate_python(content["epochs"])
        self.steps = STEPS.validate_python(content["steps"])
        self.seconds = content["seconds"]
        self.best_weights = dict(best_weights)


def _random_state_on_gpu() -> Tensor | None:
    """Return the state of CUDA's random numbers; None where this process does not use CUDA."""
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state() if initialized else None


def _running_average(model: SentimentClassifier, decay: float) -> AveragedModel | None:
    """Return a model that follows the weights' exponential average; None where decay is 0."""
    if decay == 0:
        return None
    averaging = get_ema_multi_avg_fn(decay**AVERAGE_EVERY)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=averaging)
    average.to(model.device)  # lays each copied LSTM's weights out in one piece, as cuDNN wants them
    average.n_averaged = average.n_averaged.cpu()  # read before each update, which would wait for a GPU
    return average
