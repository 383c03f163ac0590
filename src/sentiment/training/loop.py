"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sentiment.errors import TrainingDivergedError
from sentiment.logs import progress
from sentiment.model.classifier import SentimentClassifier, build_inputs, check_token_ids
from sentiment.model.diagnostics import measure_gate_saturation
from sentiment.model.ngram_branch import fit_ngram_branch
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import Batch, TrainingData, Truncation, iter_shuffled_batches, prefetch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import (
    EpochMetrics,
    EvaluationSchedule,
    IntermediateEvaluator,
    StepMetrics,
    compute_epoch_metrics,
)
from sentiment.training.gradients import (
    REMEDY,
    GradientNorms,
    UpdateRatioMeter,
    compute_gradient_norms,
    describe_non_finite_layers,
    is_update_measured,
    require_finite,
)
from sentiment.training.optimization import compute_learning_rate_factor, validate_schedule
from sentiment.training.ranks import SINGLE, Ranks, share_state
from sentiment.training.runtime import (
    Precision,
    configure_allocator,
    release_memory,
    resolve_device,
    resolve_precision,
)
from sentiment.training.state import TrainingState


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and the metrics of its training."""

    model: SentimentClassifier
    """Model with the weights of the best epoch, on the CPU and in evaluation mode."""
    epochs: list[EpochMetrics]
    """Metrics of all epochs."""
    best: EpochMetrics
    """Metrics of the best epoch: the first one with the highest validation AUC."""
    validation_logits: NDArray[np.float32]
    """Validation logits in the best epoch, shape (reviews,)."""


def fit(
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    on_epoch: Callable[[EpochMetrics], None],
    description: str = "train",
    checkpoint: Checkpoint | None = None,
    evaluations: EvaluationSchedule | None = None,
    ranks: Ranks = SINGLE,
) -> TrainingResult:
    """Train a classifier. On the same machine, equal arguments give bitwise equal weights.

    With several ranks, each calls this function, and all return the same result.

    Args:
        model_params: architecture of the model.
        params: training parameters.
        reviews: training and validation reviews.
        on_epoch: callback that receives the metrics of each epoch; an exception that it raises ends the
            training. It does not receive the epochs that were completed before the run resumed.
        description: name of the run in progress bars.
        checkpoint: checkpoint from which a killed run resumes, with the same result. Only the main rank has
            one; the others start from the main rank's state.
        evaluations: schedule of the intermediate evaluations, which do not affect the weights.
        ranks: the `params.ranks` ranks that train together.

    Raises:
        UserError: the requested device or precision is not available, the schedule is longer than the run, or
            a token id is not in the vocabulary; raised before the first step.
        TrainingDivergedError: a loss or gradient is not finite; raised before the optimizer takes the step.
    """
    if ranks.size != params.ranks:
        raise ValueError(f"{ranks.size} ranks train, but train.ranks is {params.ranks}")
    device = resolve_device(params.device)
    precision = resolve_precision(params.precision, device)
    torch.set_num_threads(params.threads)
    steps_per_epoch = math.ceil(len(reviews.train) / params.batch_size)
    validate_schedule(params.schedule, steps_per_epoch, params.epochs)
    for split, tokens in reviews.select_splits(unlabelled=False).items():
        check_token_ids(tokens, reviews.vocabulary_size, f"{split} split")
    model, train_ngrams = _build_model(model_params, reviews, params.seed, device)
    validation_ngrams = model.extract_ngrams(reviews.validation)
    state = TrainingState.create(model, params, steps_per_epoch)
    meter = UpdateRatioMeter(model)
    evaluator = (
        IntermediateEvaluator(evaluations, model, reviews.validation, steps_per_epoch, params.epochs)
        if evaluations
        else None
    )
    if checkpoint:
        checkpoint.restore(state)
    share_state(state, ranks)

    for epoch in range(state.epoch, params.epochs + 1):
        batches = _load_batches(reviews.train, train_ngrams, params, state, ranks)
        started = time.perf_counter() - state.seconds
        name = f"{description}, epoch {epoch} of {params.epochs}"
        for batch in progress(batches, steps_per_epoch, name, done=len(state.steps)):
            learning_rate = params.optimizer.learning_rate * compute_learning_rate_factor(
                params.schedule, state.optimizer_steps, steps_per_epoch, params.epochs
            )
            step_meter = meter if is_update_measured(len(state.steps), steps_per_epoch) else None
            step = take_step(state, batch, learning_rate, precision, step_meter, ranks)
            state.record_step(step, time.perf_counter() - started)
            if evaluator:  # its duration does not count towards the duration of the epoch
                started += evaluator.evaluate_if_due(state.evaluated_model, epoch, len(state.steps))
            if checkpoint:
                checkpoint.save_if_due(state)
        ranks.require_equal_weights(model, f"the end of epoch {epoch}")
        metrics = _validate_epoch(state, reviews.validation, validation_ngrams, evaluator, description, ranks)
        release_memory()
        if checkpoint:
            checkpoint.save(state)
        on_epoch(metrics)

    model.load_state_dict(state.best_weights)
    return TrainingResult(model.cpu().eval(), state.epochs, state.best, state.best_logits.numpy())


def take_step(
    state: TrainingState,
    batch: Batch,
    learning_rate: float,
    precision: Precision,
    meter: UpdateRatioMeter | None = None,
    ranks: Ranks = SINGLE,
) -> StepMetrics:
    """Take one optimizer step: forward pass, backward pass, clipping, update.

    Args:
        state: training state, whose model and optimizer are updated; the step is not recorded in it.
        batch: training reviews, of which other ranks have other parts.
        learning_rate: learning rate of this step.
        precision: precision of the forward pass.
        meter: meter of the update ratios; None does not measure them.
        ranks: the ranks that take the step together.

    Raises:
        TrainingDivergedError: the loss or the gradient is not finite; the weights are unchanged.
    """
    model, optimizer = state.model, state.optimizer
    model.train()
    optimizer.zero_grad()  # before the forward pass, which can then reuse the memory of the gradients
    objective, loss, correct = ranks.sum_gradients(model, batch, _run_backward(model, batch, precision))
    norms = compute_gradient_norms(model)  # the first operation that waits for a GPU
    _require_finite_step(state, objective, norms)
    batch_loss, batch_correct = loss.item(), int(correct)
    clipping = state.clipper(model.named_parameters(), norms.total)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if meter:
        meter.start()
    optimizer.step()
    return StepMetrics(
        loss=batch_loss,
        correct=batch_correct,
        reviews=len(batch.whole.labels),
        tokens=batch.whole.tokens,
        clipping=clipping,
        learning_rate=learning_rate,
        gradient_norms=norms.layers,
        update_ratios=meter.stop() if meter else {},
    )


def _build_model(
    model_params: ModelParams, reviews: TrainingData, seed: int, device: torch.device
) -> tuple[SentimentClassifier, ReviewNGrams | None]:
    """Build a model with initial weights on a device; return it and the n-grams of the training reviews."""
    branch, ngrams = None, None
    if model_params.ngrams:
        # Before the allocator is configured, so that the memory for counting n-grams is unmapped when freed.
        branch, ngrams = fit_ngram_branch(reviews.train, model_params.ngrams)
    release_memory()  # needed if an earlier training run in this process has configured the allocator
    configure_allocator()
    # As `use_deterministic_algorithms(True)`, which also imports torch's compiler: 3 processor seconds.
    torch.set_deterministic_debug_mode("error")
    # Torch would also fill every new tensor, to reveal reads of uninitialized memory; this would take a sixth
    # of the training time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Without TF32, fp32 has the same precision on a GPU as on a CPU, and so have the scores.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(seed)
    return SentimentClassifier(model_params, reviews.vocabulary_size, branch).to(device), ngrams


def _load_batches(
    train: TokenizedReviews,
    ngrams: ReviewNGrams | None,
    params: TrainParams,
    state: TrainingState,
    ranks: Ranks,
) -> Iterator[Batch]:
    """Load the remaining batches of the current epoch, in an order that depends on the seed and the epoch.

    With several ranks, load this rank's part of each.
    """
    rng = np.random.default_rng([params.seed, state.epoch])
    model_params = state.model.params
    truncation = Truncation(model_params.max_tokens, model_params.truncation)
    whole = iter_shuffled_batches(train, truncation, params.batch_size, rng, ngrams, len(state.steps))
    batches = (ranks.take_part(batch, model_params) for batch in whole)
    return prefetch(batches) if state.model.device.type == "cuda" else batches


def _run_backward(model: SentimentClassifier, batch: Batch, precision: Precision) -> list[Tensor]:
    """Run the forward and backward passes.

    With an n-gram branch, the objective is the sum of two losses, that of the LSTM's logits and that of the
    n-gram branch's logits, whereas the loss is computed from the combined logits. Of a part of a batch, both
    are weighted, so that their sums over all parts are those of the whole batch.

    Returns:
        Three scalars: the objective, the mean loss and the number of correctly classified reviews.
    """
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        branch_logits = model.compute_branch_logits(*build_inputs(batch, model.device))
    labels = torch.from_numpy(batch.labels).to(model.device, branch_logits.dtype)
    losses = binary_cross_entropy_with_logits(
        branch_logits, labels.expand_as(branch_logits), reduction="none"
    )
    objective = losses.mean(dim=1).sum() * batch.weight
    objective.backward()  # type: ignore[no-untyped-call]
    logits = model.combine_branch_logits(branch_logits.detach())
    loss = binary_cross_entropy_with_logits(logits, labels) * batch.weight
    correct = ((logits > 0) == (labels > 0.5)).sum() * (batch.weight > 0)
    return [objective.detach(), loss, correct]


def _require_finite_step(state: TrainingState, objective: Tensor, norms: GradientNorms) -> None:
    """Raise a TrainingDivergedError that names the layers, if the objective or the gradient is not finite."""
    if not torch.isfinite(objective):
        problem = f"the loss is {objective.item()}{describe_non_finite_layers(state.model)}"
    elif not math.isfinite(norms.total):
        layers = ", ".join(norms.non_finite_layers) or "all layers together"
        problem = f"the gradient of {layers} is not finite"
    else:
        return
    position = state.describe_position()
    raise TrainingDivergedError(f"{position}: {problem}; the optimizer step was not taken; {REMEDY}")


def _validate_epoch(
    state: TrainingState,
    validation: TokenizedReviews,
    ngrams: ReviewNGrams | None,
    evaluator: IntermediateEvaluator | None,
    description: str,
    ranks: Ranks,
) -> EpochMetrics:
    """Validate the current model, compute the epoch's metrics and record them in the state.

    Args:
        state: training state after the last step of the epoch.
        validation: validation reviews.
        ngrams: n-grams of the validation reviews; None if the model has no n-gram branch.
        evaluator: evaluator that reports the last intermediate evaluation of the epoch; None reports none.
        description: name of the run in progress bars.
        ranks: the ranks that validate the model together.
    """
    epoch = state.epoch
    logits = ranks.predict_logits(state.evaluated_model, validation, f"{description}, validation", ngrams)
    # Detects weights that the last step made non-finite; after any other step, the next step detects them.
    require_finite(logits, state.evaluated_model, f"the validation of epoch {epoch}")
    if evaluator:
        evaluator.evaluate_epoch_end(epoch, logits)
    saturation = measure_gate_saturation(state.evaluated_model, validation, f"{description}, gates")
    metrics = compute_epoch_metrics(epoch, state.steps, state.seconds, logits, validation.labels, saturation)
    state.record_epoch(metrics, logits)
    return metrics
