"""Self-training: an initial model assigns pseudo-labels to the unlabelled reviews for the final model."""

import logging
from collections.abc import Callable
from dataclasses import replace

from sentiment.errors import UserError
from sentiment.model.classifier import check_token_ids, compute_probabilities
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, EvaluationSchedule
from sentiment.training.loop import TrainingResult, fit
from sentiment.training.ranks import SINGLE, Ranks
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
    ranks: Ranks = SINGLE,
) -> TrainingResult:
    """Train a classifier as `fit` does, with self-training if `params.unlabelled` requests it.

    Self-training has two stages (Lee, 2013, here with soft labels). The initial model is trained on the
    labelled reviews. The final model, which is returned, is trained from scratch with the same seed on all
    reviews, with the initial model's probabilities as pseudo-labels of the unlabelled ones. The training loss
    and accuracy of the final model are therefore partly measured against pseudo-labels; its validation
    metrics are not.

    Args:
        model_params: architecture of both models.
        params: training parameters of both models.
        reviews: labelled and unlabelled reviews.
        on_epoch: callback that receives the metrics of each epoch of the final model.
        description: name of the training run in progress bars and log messages.
        checkpoint: checkpoint of the run. The initial model has a nested checkpoint, so that a run that is
            killed while the final model trains does not train the initial model again.
        evaluations: schedule of the intermediate evaluations of the final model.
        ranks: the ranks that train both models together.

    Returns:
        The final model and the metrics of its training.

    Raises:
        UserError: `fit` raises it, or self-training is requested and there are no unlabelled reviews.
        TrainingDivergedError: `fit` raises it.
    """
    if params.unlabelled == "ignore":
        return fit(model_params, params, reviews, on_epoch, description, checkpoint, evaluations, ranks)
    if not len(reviews.unlabelled):
        raise UserError(
            "train.unlabelled: self_training requires unlabelled reviews, but no source has any; "
            "sources of kind imdb have"
        )
    check_token_ids(reviews.unlabelled, reviews.vocabulary_size, "unlabelled split")
    train_reviews = _add_pseudo_labels(model_params, params, reviews, description, checkpoint, ranks)
    release_memory()
    logger.info(
        f"{description}: training the final model on these and {len(reviews.unlabelled):,} "
        "pseudo-labelled reviews"
    )
    final_reviews = replace(reviews, train=train_reviews)
    return fit(model_params, params, final_reviews, on_epoch, description, checkpoint, evaluations, ranks)


def _add_pseudo_labels(
    model_params: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    description: str,
    checkpoint: Checkpoint | None,
    ranks: Ranks,
) -> TokenizedReviews:
    """Train the initial model, and return the labelled reviews followed by the pseudo-labelled ones."""
    name = f"{description}, initial model"
    logger.info(f"{description}: training the initial model on {len(reviews.train):,} labelled reviews")
    initial = fit(
        model_params,
        params,
        reviews,
        on_epoch=lambda epoch: logger.info(f"{name}, {epoch}"),
        description=name,
        checkpoint=checkpoint.open_nested("initial") if checkpoint else None,
        ranks=ranks,
    )
    logits = ranks.predict_logits(
        initial.model.to(resolve_device(params.device)), reviews.unlabelled, f"{name}, unlabelled"
    )
    return reviews.train.concatenate(reviews.unlabelled, compute_probabilities(logits))
