"""A training run as tables and metrics for DVC: nothing in them depends on the clock."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from sentiment.errors import TrainingDivergedError
from sentiment.logs import progress
from sentiment.model.classifier import SentimentClassifier, build_inputs, check_token_ids, predict_logits
from sentiment.model.diagnostics import measure_gate_saturation
from sentiment.model.ngram_branch import fit_ngram_branch
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import Batch, TrainingData, Truncation, iter_shuffled_batches, prefetch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.clipping import GradientClipper
from sentiment.training.epoch_metrics import (
    EpochMetrics,
    EvaluationSchedule,
    IntermediateEvaluator,
    StepMetrics,
    compute_epoch_metrics,
)
from sentiment.training.gradients import (
    REMEDY,
    UpdateRatios,
    describe_non_finite_layers,
    gradient_norms,
    is_update_measured,
    require_finite,
)
from sentiment.training.optimization import compute_learning_rate_factor, validate_schedule
from sentiment.training.runtime import (
    Precision,
    configure_allocator,
    release_memory,
    resolve_device,
    resolve_precision,
)
from sentiment.training.state import TrainingState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A trained model, with the weights of its best epoch by validation AUC, and how it got there.

    The model is on the CPU, wherever it was trained.
    """

    model: SentimentClassifier
    epochs: list[EpochMetrics]
    best: EpochMetrics
    validation_logits: NDArray[np.float32]
    """Of the validation reviews, shape (reviews,): those that the best epoch's AUC is of."""


def fit(
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    on_epoch: Callable[[EpochMetrics], None],
    description: str = "train",
    checkpoint: Checkpoint | None = None,
    evaluations: EvaluationSchedule | None = None,
) -> TrainingResult:
    """Train a classifier; equal arguments give equal weights, bit for bit, on one machine.

    on_epoch: gets each epoch's figures as they come; an exception that it raises ends the training.
    checkpoint: where the run goes on if it was killed, with the same result; None goes without. Epochs that
    were over by then are not told to `on_epoch` again.
    evaluations: looks at the validation AUC within the epochs; without them the weights are the same.
    Raises UserError before the first step where the device or the precision asked for is not there, the
    schedule is longer than the run, or a token id is not in the vocabulary; TrainingDivergedError before the
    optimizer would take a step with a loss or gradient that is not finite.
    """
    device = resolve_device(params.device)
    precision = resolve_precision(params.precision, device)
    train, validation = reviews.train, reviews.validation
    steps_per_epoch = math.ceil(len(train) / params.batch_size)
    validate_schedule(params.schedule, steps_per_epoch, params.epochs)
    for split, tokens in reviews.select_splits(unlabelled=False).items():
        check_token_ids(tokens, reviews.vocabulary_size, f"{split} split")
    # Before memory is set up for training: what counting takes is mapped apart, and goes back by itself.
    part, ngrams = fit_ngram_branch(train, model_params.ngrams) if model_params.ngrams else (None, None)
    release_memory()  # where an earlier training set memory up
    _set_up_torch(params.seed)
    model = SentimentClassifier(model_params, reviews.vocabulary_size, part).to(device)
    validation_ngrams = model.extract_ngrams(validation)
    state = TrainingState.start(model, params)
    updates = UpdateRatios(model)
    checker = (
        IntermediateEvaluator(evaluations, model, validation, steps_per_epoch, params.epochs)
        if evaluations
        else None
    )
    truncation = Truncation(model_params.max_tokens, model_params.truncation)
    if checkpoint and (saved := checkpoint.restore(state)):
        logger.info(f"resuming at {state.position(steps_per_epoch, params.epochs)} (checkpoint of {saved})")

    for number in range(len(state.epochs) + 1, params.epochs + 1):
        first = len(state.steps)
        order = np.random.default_rng([params.seed, number])
        batches = iter_shuffled_batches(train, truncation, params.batch_size, order, ngrams, first)
        if device.type == "cuda":
            batches = prefetch(batches)
        name = f"{description}, epoch {number} of {params.epochs}"
        started = time.perf_counter() - state.seconds
        for batch in progress(batches, steps_per_epoch, name, done=first):
            index = len(state.steps)
            done = (number - 1) * steps_per_epoch + index
            factor = compute_learning_rate_factor(params.schedule, done, steps_per_epoch, params.epochs)
            learning_rate = params.optimizer.learning_rate * factor
            where = state.position(steps_per_epoch, params.epochs)
            watched = updates if is_update_measured(index, steps_per_epoch) else None
            step = take_step(
                model, state.optimizer, batch, learning_rate, state.clipper, precision, where, watched
            )
            state.record_step(step, time.perf_counter() - started)
            if checker:  # its seconds are none of the epoch's
                started += checker.evaluate_if_due(state.candidate, number, index + 1)
            if checkpoint:
                checkpoint.save_if_due(state)

        epoch = _close_epoch(state, validation, validation_ngrams, checker, description)
        release_memory()
        if checkpoint:
            checkpoint.save(state)
        on_epoch(epoch)

    model.load_state_dict(state.best_weights)
    return TrainingResult(model.cpu().eval(), state.epochs, state.best, state.best_logits.numpy())


def _close_epoch(
    state: TrainingState,
    validation: TokenizedReviews,
    ngrams: ReviewNGrams | None,
    checker: IntermediateEvaluator | None,
    description: str,
) -> EpochMetrics:
    """Validate what the epoch's steps made of the model, and count the epoch; ngrams: of the reviews."""
    number = len(state.epochs) + 1
    logits = predict_logits(state.candidate, validation, f"{description}, validation", ngrams)
    # What the last step spoiled, where the average has it; what an earlier one did is seen by the next.
    require_finite(logits, state.candidate, f"the validation of epoch {number}")
    if checker:
        checker.evaluate_epoch_end(number, logits)
    saturation = measure_gate_saturation(state.candidate, validation, f"{description}, gates")
    epoch = compute_epoch_metrics(number, state.steps, state.seconds, logits, validation.labels, saturation)
    state.record_epoch(epoch, logits)
    return epoch


def take_step(
    model: SentimentClassifier,
    optimizer: Optimizer,
    batch: Batch,
    learning_rate: float,
    clipper: GradientClipper,
    precision: Precision,
    where: str,
    updates: UpdateRatios | None = None,
) -> StepMetrics:
    """Forward, backward, clip, update; the figures of all four.

    where: the step's name in an error. updates: measures what the step changes; None does without.
    Raises TrainingDivergedError, with the weights unchanged, where the loss or the gradient's norm is not
    finite; it names the layers at fault.
    """
    model.train()
    optimizer.zero_grad()  # before the forward pass, so that it finds the last step's memory in one piece
    labels = torch.from_numpy(batch.labels).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        parts = model.compute_branch_logits(*build_inputs(batch, model.device))
    losses = binary_cross_entropy_with_logits(parts, labels.expand_as(parts), reduction="none")
    objective = losses.mean(dim=1).sum()
    objective.backward()  # type: ignore[no-untyped-call]
    logits = model.combine_branch_logits(parts.detach())
    loss, right = binary_cross_entropy_with_logits(logits, labels), ((logits > 0) == (labels > 0.5)).sum()
    norms = gradient_norms(model)  # here a GPU is waited for, once a step: all above is only queued
    if not torch.isfinite(objective):
        raise TrainingDivergedError(
            f"{where}: the loss is {objective.item()}{describe_non_finite_layers(model)}; {NO_STEP}; {REMEDY}"
        )
    if not math.isfinite(norms.total):
        spoiled = ", ".join(norms.not_finite) or "all layers together"
        raise TrainingDivergedError(f"{where}: the gradient of {spoiled} is not finite; {NO_STEP}; {REMEDY}")
    measured = loss.item(), int(right)
    clipped = clipper(model.named_parameters(), norms.total)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if updates:
        updates.remember()
    optimizer.step()
    ratios = updates.measure() if updates else {}
    return StepMetrics(*measured, len(labels), batch.tokens, clipped, learning_rate, norms.layers, ratios)


def _set_up_torch(seed: int) -> None:
    configure_allocator()
    torch.use_deterministic_algorithms(True)
    # It would also fill every new tensor, to show up who reads memory before writing it: a sixth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # So that 32-bit floats on a GPU are what they are on a CPU, and the scores with them.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(seed)


NO_STEP = "no step was taken with it"


OF_THE_MACHINE = "tokens_per_second"
"""Differs from run to run where the result does not: it goes to MLflow alone."""

DECIMALS = 6


def build_training_metrics(fitted: TrainingResult) -> dict[str, Any]:
    """Return how many epochs there were, and the figures of the one whose weights were kept."""
    return {"epochs": len(fitted.epochs), "best": _reproducible(fitted.best)}


def build_history_table(fitted: TrainingResult) -> pd.DataFrame:
    """Return one row per epoch; what there is per layer stands in `build_gradients_table`."""
    return pd.DataFrame([_reproducible(epoch) for epoch in fitted.epochs])


def build_gradients_table(fitted: TrainingResult) -> pd.DataFrame:
    """Return one row per epoch and layer: how its gradients and its updates were."""
    return pd.DataFrame(
        [
            {"epoch": epoch.epoch, "layer": name, **asdict(layer)}
            for epoch in fitted.epochs
            for name, layer in epoch.gradients.layers.items()
        ]
    )


def _reproducible(epoch: EpochMetrics) -> dict[str, Any]:
    figures = asdict(epoch)
    figures.pop(OF_THE_MACHINE)
    figures.pop("gradients")
    return {
        "epoch": figures.pop("epoch"),
        **{name: round(value, DECIMALS) for name, value in figures.items()},
    }
