"""Fit the classifier and keep its best epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from sentiment.errors import TrainingDivergedError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.scoring import score
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.progress import say, track
from sentiment.tokens.batches import Batch, Cut, shuffled_batches
from sentiment.tokens.store import TokenizedReviews
from sentiment.training.checkpoints import Checkpoint
from sentiment.training.clipping import Clipper
from sentiment.training.figures import Epoch, Step, epoch_figures
from sentiment.training.memory import release_memory, set_up_memory
from sentiment.training.precision import Precision, resolve_precision
from sentiment.training.schedules import check_length, learning_rate_factor
from sentiment.training.state import TrainingState


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
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train a classifier; equal arguments give equal weights, bit for bit, on one machine.

    on_epoch: gets each epoch's figures as they come; an exception that it raises ends the training.
    checkpoint: where the run goes on if it was killed, with the same result; None goes without. Epochs that
    were over by then are not told to `on_epoch` again.
    Raises UserError before the first step where the schedule is longer than the run or the processor does
    not have the precision asked for; TrainingDivergedError before the optimizer would take a step with a
    loss or gradient that is not finite.
    """
    precision = resolve_precision(params.precision)
    steps_per_epoch = math.ceil(len(train) / params.batch_size)
    check_length(params.schedule, steps_per_epoch, params.epochs)
    _set_up_torch(params.seed)
    state = TrainingState.start(model_params, params, vocabulary_size)
    cut = Cut(model_params.max_tokens, model_params.keep)
    if checkpoint and (saved := checkpoint.restore(state)):
        say(f"resuming at {state.position(steps_per_epoch, params.epochs)} (checkpoint of {saved})")

    for number in range(len(state.epochs) + 1, params.epochs + 1):
        first = len(state.steps)
        order = np.random.default_rng([params.seed, number])
        batches = shuffled_batches(train, cut, params.batch_size, order, first)
        name = f"{description}, epoch {number} of {params.epochs}"
        started = time.perf_counter() - state.seconds
        for batch in track(batches, steps_per_epoch, name, done=first):
            done = (number - 1) * steps_per_epoch + len(state.steps)
            factor = learning_rate_factor(params.schedule, done, steps_per_epoch, params.epochs)
            learning_rate = params.optimizer.learning_rate * factor
            where = state.position(steps_per_epoch, params.epochs)
            step = take_step(
                state.model, state.optimizer, batch, learning_rate, state.clipper, precision, where
            )
            state.close_step(step, time.perf_counter() - started)
            if checkpoint:
                checkpoint.save_when_due(state)

        logits = score(state.candidate, validation, f"{description}, validation")
        epoch = epoch_figures(number, state.steps, state.seconds, logits, validation.labels)
        state.close_epoch(epoch)
        release_memory()
        if checkpoint:
            checkpoint.save(state)
        on_epoch(epoch)

    state.model.load_state_dict(state.best_weights)
    return Fitted(state.model.eval(), state.epochs, best=state.best)


def take_step(
    model: SentimentClassifier,
    optimizer: Optimizer,
    batch: Batch,
    learning_rate: float,
    clipper: Clipper,
    precision: Precision,
    where: str,
) -> Step:
    """Forward, backward, clip, update; the figures of all four.

    where: the step's name in an error. Raises TrainingDivergedError, with the weights unchanged, where the
    loss or the gradient's norm is not finite.
    """
    model.train()
    labels = torch.from_numpy(batch.labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths))
    loss = binary_cross_entropy_with_logits(logits, labels)
    if not torch.isfinite(loss):
        raise TrainingDivergedError(f"{where}: the loss is {loss.item()}; {REMEDY}")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    clipped = clipper(model.named_parameters())
    if not math.isfinite(clipped.norm):
        raise TrainingDivergedError(
            f"{where}: the gradient of {_first_not_finite(model)} is not finite; {REMEDY}"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    correct = int(((logits > 0) == (labels == 1)).sum())
    return Step(loss.item(), correct, len(labels), batch.tokens, clipped, learning_rate)


def _set_up_torch(seed: int) -> None:
    set_up_memory()
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


REMEDY = "no step was taken with it; lower train.optimizer.learning_rate or clip the gradient (train.clip)"


def _first_not_finite(model: SentimentClassifier) -> str:
    return next(
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    )
