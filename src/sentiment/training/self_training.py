"""Learning from reviews that nobody labelled: a first model labels them for the one that is kept."""

import logging
from collections.abc import Callable
from dataclasses import replace

from sentiment.errors import UserError
from sentiment.model.classifier import check_token_ids, compute_probabilities, predict_logits
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, EvaluationSchedule
from sentiment.training.loop import TrainingResult, fit
from sentiment.training.runtime import release_memory, resolve_device

logger = logging.getLogger(__name__)


def fit_with_self_training(
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    on_epoch: Callable[[EpochMetrics], None],
    description: str = "train",
    checkpoint: Checkpoint | None = None,
    evaluations: EvaluationSchedule | None = None,
) -> TrainingResult:
    """Train a classifier as `fit` does, and with the unlabelled reviews where the parameters say so.

    In self-training a teacher is trained on the labelled reviews; then a student, which is returned, anew and
    from the same seed on both, with the teacher's probabilities as labels of the others. So the student's
    training loss and accuracy are partly against the teacher; its validation figures are not.
    on_epoch: gets the student's epochs alone; evaluations: of the student. checkpoint: the teacher
    has one of its own within it, so that a run that was killed while the student learned finds the teacher
    trained.
    Raises what `fit` does, and UserError before the first step where there are no unlabelled reviews.
    """
    if params.unlabelled == "ignore":
        return fit(model_params, params, reviews, on_epoch, description, checkpoint, evaluations)
    if not len(reviews.unlabelled):
        raise UserError(
            "train.unlabelled: self_training asked for, but no source has unlabelled reviews; kind imdb has"
        )
    check_token_ids(reviews.unlabelled, reviews.vocabulary_size, "unlabelled split")
    joined = _labelled_by_teacher(model_params, params, reviews, description, checkpoint)
    release_memory()
    logger.info(
        f"{description}: a student learns from these and {len(reviews.unlabelled):,} unlabelled reviews"
    )
    student = replace(reviews, train=joined)
    return fit(model_params, params, student, on_epoch, description, checkpoint, evaluations)


def _labelled_by_teacher(
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    description: str,
    checkpoint: Checkpoint | None,
) -> TokenizedReviews:
    """Return all reviews, the unlabelled ones under the probabilities of a teacher, which is let go."""
    name = f"{description}, teacher"
    logger.info(f"{description}: a teacher learns from {len(reviews.train):,} labelled reviews")
    teacher = fit(
        model_params,
        params,
        reviews,
        on_epoch=lambda epoch: logger.info(f"{name}, {epoch}"),
        description=name,
        checkpoint=checkpoint.part("teacher") if checkpoint else None,
    )
    logits = predict_logits(
        teacher.model.to(resolve_device(params.device)), reviews.unlabelled, f"{name}, unlabelled"
    )
    return reviews.train.concatenate(reviews.unlabelled, compute_probabilities(logits))
