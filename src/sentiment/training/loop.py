"""Fit the classifier and keep its best epoch."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sentiment.errors import TrainingDivergedError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.gates import gate_saturation
from sentiment.model.scoring import score
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.progress import track
from sentiment.tokens.batches import Batch, Cut, shuffled_batches
from sentiment.tokens.store import TokenizedReviews
from sentiment.training.clipping import Clipper
from sentiment.training.figures import Epoch, Step, epoch_figures
from sentiment.training.health import UpdateRatios, gradient_norms, is_measured, layers_not_finite
from sentiment.training.memory import release_memory, set_up_memory
from sentiment.training.optimizers import make_optimizer
from sentiment.training.precision import Precision, resolve_precision
from sentiment.training.schedules import check_length, learning_rate_factor


@dataclass(frozen=True)
class Fitted:
    """A trained model, with the weights of its best epoch by validation AUC, and how it got there."""

    model: SentimentClassifier
    epochs: list[Epoch]
    best: Epoch


def fit(
    model_params: ModelParams,
    params: TrainParams,
    vocabulary_size: int,
    train: TokenizedReviews,
    validation: TokenizedReviews,
    on_epoch: Callable[[Epoch], None],
    description: str = "train",
) -> Fitted:
    """Train a classifier; equal arguments give equal weights, bit for bit, on one machine.

    on_epoch: gets each epoch's figures as they come; an exception that it raises ends the training.
    Raises UserError before the first step where the schedule is longer than the run or the processor does
    not have the precision asked for; TrainingDivergedError before the optimizer would take a step with a
    loss or gradient that is not finite.
    """
    precision = resolve_precision(params.precision)
    steps_per_epoch = math.ceil(len(train) / params.batch_size)
    check_length(params.schedule, steps_per_epoch, params.epochs)
    _set_up_torch(params.seed)
    model = SentimentClassifier(model_params, vocabulary_size)
    optimizer = make_optimizer(model.parameters(), params.optimizer)
    clipper = Clipper(params.clip, model.last_layer)
    updates = UpdateRatios(model)
    average = _running_average(model, params.average)
    candidate = cast(SentimentClassifier, average.module) if average else model
    cut = Cut(model_params.max_tokens, model_params.keep)

    epochs: list[Epoch] = []
    best_weights: dict[str, Tensor] = {}
    for number in range(1, params.epochs + 1):
        started = time.perf_counter()
        batches = shuffled_batches(
            train, cut, params.batch_size, np.random.default_rng([params.seed, number])
        )
        bar = track(batches, steps_per_epoch, f"{description}, epoch {number} of {params.epochs}")
        steps: list[Step] = []
        for index, batch in enumerate(bar):
            done = (number - 1) * steps_per_epoch + index
            factor = learning_rate_factor(params.schedule, done, steps_per_epoch, params.epochs)
            learning_rate = params.optimizer.learning_rate * factor
            where = f"epoch {number}, step {index + 1} of {steps_per_epoch}"
            watched = updates if is_measured(index, steps_per_epoch) else None
            steps.append(
                take_step(model, optimizer, batch, learning_rate, clipper, precision, where, watched)
            )
            if average:
                average.update_parameters(model)
        seconds = time.perf_counter() - started

        epoch = epoch_figures(
            number,
            steps,
            seconds,
            score(candidate, validation, f"{description}, validation"),
            validation.labels,
            gate_saturation(candidate, validation, f"{description}, gates"),
        )
        if not epochs or epoch.validation_auc > max(earlier.validation_auc for earlier in epochs):
            best_weights = copy.deepcopy(candidate.state_dict())
        epochs.append(epoch)
        release_memory()
        on_epoch(epoch)

    model.load_state_dict(best_weights)
    return Fitted(model.eval(), epochs, best=max(epochs, key=lambda epoch: epoch.validation_auc))


def take_step(
    model: SentimentClassifier,
    optimizer: Optimizer,
    batch: Batch,
    learning_rate: float,
    clipper: Clipper,
    precision: Precision,
    where: str,
    updates: UpdateRatios | None = None,
) -> Step:
    """Forward, backward, clip, update; the figures of all four.

    where: the step's name in an error. updates: measures what the step changes; None does without.
    Raises TrainingDivergedError, with the weights unchanged, where the loss or the gradient's norm is not
    finite; it names the layers at fault.
    """
    model.train()
    labels = torch.from_numpy(batch.labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths))
    loss = binary_cross_entropy_with_logits(logits, labels)
    if not torch.isfinite(loss):
        spoiled = ", ".join(layers_not_finite(model))
        weights = f", with weights of {spoiled} that are not finite" if spoiled else ""
        raise TrainingDivergedError(f"{where}: the loss is {loss.item()}{weights}; {REMEDY}")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norms = gradient_norms(model)
    if not math.isfinite(norms.total):
        spoiled = ", ".join(norms.not_finite) or "all layers together"
        raise TrainingDivergedError(f"{where}: the gradient of {spoiled} is not finite; {REMEDY}")
    clipped = clipper(model.named_parameters(), norms.total)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if updates:
        updates.remember()
    optimizer.step()
    ratios = updates.measure() if updates else {}
    correct = int(((logits > 0) == (labels == 1)).sum())
    return Step(loss.item(), correct, len(labels), batch.tokens, clipped, learning_rate, norms.layers, ratios)


def _set_up_torch(seed: int) -> None:
    set_up_memory()
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def _running_average(model: SentimentClassifier, decay: float) -> AveragedModel | None:
    """Return a model that follows the weights' exponential average; None where decay is 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


REMEDY = "no step was taken with it; lower train.optimizer.learning_rate or clip the gradient (train.clip)"
