"""Train the LSTM that params.yaml describes."""

import logging
import os
from collections.abc import Callable
from functools import partial

from sentiment import paths
from sentiment.cluster.connection import connect
from sentiment.cluster.resources import Needs, read_task_memory
from sentiment.environment import require_locked_packages
from sentiment.errors import UserError, exits_cleanly
from sentiment.files import write_csv, write_json
from sentiment.lineage import (
    TRAINING_INPUTS,
    build_origin,
    log_configuration,
    open_training_run,
    record_finished_training,
    tag_run_with_model,
)
from sentiment.model.model_files import save_model
from sentiment.params import Params, load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.settings import Settings, load_settings, repository_root
from sentiment.tokens.batches import TrainingData
from sentiment.tracking.provenance import log_provenance
from sentiment.training.checkpoint import open_checkpoint
from sentiment.training.epoch_metrics import (
    EpochMetrics,
    build_gradients_table,
    build_history_table,
    build_training_metrics,
)
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.launch import are_ranks_missing, join_ranks, start_ranks
from sentiment.training.loop import TrainingResult
from sentiment.training.runtime import resolve_device
from sentiment.training.self_training import fit_with_self_training

logger = logging.getLogger(__name__)

FLOAT_FORMAT = "%.4g"
"""Format with significant digits rather than decimals, so that a small norm is not rounded to zero."""


@exits_cleanly
def main() -> None:
    """Train the baseline model; write the model, its metrics and history, and log them to an MLflow run.

    A run that is killed resumes from its last checkpoint, in the same MLflow run. With several ranks
    (`train.ranks`), rank 0 logs and writes; the others only train. With RAY_ADDRESS set, the ranks train on
    the nodes of that Ray cluster.
    """
    require_locked_packages("train")
    require_incoming_in_copy()
    params = load_params()
    settings = load_settings()
    if settings.ray_address:
        _train_on_ray(params, settings)
        return
    if are_ranks_missing(params.train):
        start_ranks("stages.train", params.train.ranks)
        return
    with join_ranks(params.train) as ranks:
        reviews = TrainingData.open()
        if ranks.is_main:
            _train(params, reviews, partial(fit_with_self_training, ranks=ranks))
        else:
            fit_with_self_training(params.model, params.train, reviews, lambda _: None, ranks=ranks)


def _train_on_ray(params: Params, settings: Settings) -> None:
    """Train with the ranks on the nodes of a Ray cluster; this process logs and writes.

    Raises:
        UserError: torchrun has started this process, or the cluster cannot run the ranks.
    """
    if "RANK" in os.environ:
        raise UserError(
            "RAY_ADDRESS is set, but torchrun has started this process (RANK): unset RAY_ADDRESS, or start "
            "the stage without torchrun"
        )
    on_gpu = resolve_device(params.train.device).type == "cuda"
    needs = Needs(params.train.threads, int(on_gpu), read_task_memory(settings))
    with connect(needs, "a rank", settings=settings) as cluster:
        from sentiment.training.on_ray import fit_on_ray, require_places  # imports Ray, an optional extra

        require_places(cluster, needs, params.train.ranks)
        fit = partial(fit_on_ray, cluster, needs, settings.checkpoint_minutes)
        _train(params, TrainingData.open(), fit)


def _train(params: Params, reviews: TrainingData, fit: Callable[..., TrainingResult]) -> None:
    """Train, log and write.

    Args:
        params: all parameters of params.yaml.
        reviews: training data.
        fit: function that trains, with the parameters of `fit_with_self_training`.
    """
    origin = build_origin(params, reviews)
    fingerprint = compute_fingerprint(params.model, params.train, reviews)
    folder, minutes = repository_root() / paths.CHECKPOINTS, load_settings().checkpoint_minutes
    with (
        open_checkpoint(folder, fingerprint, minutes) as checkpoint,
        open_training_run(checkpoint, params, origin) as run,
    ):
        log_provenance(run, "train", TRAINING_INPUTS)
        log_configuration(run, params, reviews, origin, sections=Params.model_fields)
        for completed in checkpoint.epochs if checkpoint else ():
            run.log_epoch(completed)

        def on_epoch(epoch: EpochMetrics) -> None:
            run.log_epoch(epoch)
            logger.info(str(epoch))

        result = fit(params.model, params.train, reviews, on_epoch, checkpoint=checkpoint)
        save_model(paths.model("baseline"), result.model, origin)
        write_csv(paths.PLOTS / "train.csv", build_history_table(result.epochs))
        write_csv(paths.PLOTS / "gradients.csv", build_gradients_table(result.epochs), numbers=FLOAT_FORMAT)
        write_json(paths.metrics("train"), build_training_metrics(result.epochs, result.best))
        run.log_best(result.best)
        tag_run_with_model(run, paths.model("baseline"))
        record_finished_training(checkpoint, paths.model("baseline"))


if __name__ == "__main__":
    main()
