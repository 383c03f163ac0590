"""MLflow runs, retained models and validation logits of trials."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from sentiment.errors import UserError
from sentiment.files import atomic_write, write_text
from sentiment.lineage import build_origin, start_stage_run
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE
from sentiment.model.model_files import load_model, save_model
from sentiment.tracking import Run, Store, find_tagged_run, reopen_run
from sentiment.tracking.origin_tags import STUDY_TAG, TRIAL_TAG
from sentiment.training.loop import TrainingResult
from sentiment.training.self_training import fit_with_self_training
from sentiment.tuning.study import Search
from sentiment.tuning.trial_params import apply_values, rank_trials

logger = logging.getLogger(__name__)

STAGE = "tune"
STUDY_ID_TAG = "tune.study.id"
"""Tag of a search's run: unique id of the study, since another storage may have a study of the same name."""
KEY_TAG = "training.key"
"""Tag of a trial's run: fingerprint of the training whose epochs are logged to the run."""

LOGITS = "validation.npy"
STUDY_ID_FILE = "study_id.txt"
"""Unique id of the study whose trial wrote the model and the logits beside it. A study of the same name in
another storage has other trials, which may have run on another processor."""

RETAINED_MODELS = 3
"""Number of the best trials whose models, about ten megabytes each, are retained. Several are, since another
trial may be the winner if `tune.trials` is lowered."""


def open_search_run(store: Store, search: Search) -> Run:
    """Resume the MLflow run of a search; start a run if the store has none."""
    study_id = {STUDY_ID_TAG: search.study_id}
    with search.study_lock:  # two searches that start at once share one run
        found = find_tagged_run(store, study_id)
        reopened = reopen_run(store, found.id) if found else None
        if reopened is not None:
            return reopened
        origin = build_origin(search.params, search.reviews)
        return start_stage_run(store, STAGE, search.params, origin, {STUDY_TAG: search.name, **study_id})


def open_trial_run(parent: Run, search: Search, number: int, key: str | None = None) -> Run:
    """Resume the MLflow run of a trial; start a run if the store has none.

    The caller must hold the lock of the trial.

    Args:
        parent: MLflow run of the search.
        search: search that the trial belongs to.
        number: trial number.
        key: fingerprint of the training that the trial starts or resumes; None if it does not train. A run
            with epochs of another training, for example one on another processor, which cannot be resumed,
            is deleted and replaced by a new run.
    """
    found = find_trial_run(parent, number)
    reopened = reopen_run(parent.store, found.id) if found else None
    if reopened is not None and key is not None:
        if reopened.has_epochs and reopened.tags().get(KEY_TAG) != key:
            parent.store.client.delete_run(reopened.id)
            reopened = None
        else:
            reopened.tag({KEY_TAG: key})
    tags = {STUDY_TAG: search.name, TRIAL_TAG: str(number)} | ({KEY_TAG: key} if key else {})
    return reopened or parent.start_nested(f"trial {number}", STAGE, tags)


def find_trial_run(parent: Run, number: int) -> Run | None:
    """Return the MLflow run of a trial without resuming it; None if the store does not have it."""
    return parent.find_nested({TRIAL_TAG: str(number)})


@dataclass(frozen=True)
class RetainedModel:
    """Retained model of a finished trial.

    Attributes:
        model: trained model of the trial.
        logits: logits of all validation reviews, shape (n_reviews,).
    """

    model: SentimentClassifier
    logits: NDArray[np.float32]


def retain_model(search: Search, number: int, result: TrainingResult) -> RetainedModel:
    """Write the model and the validation logits of a finished trial to its folder."""
    folder = search.trial_folder(number)
    # Deleted first and written last, so that a kill in between leaves files without an id.
    (folder / STUDY_ID_FILE).unlink(missing_ok=True)
    save_model(folder, result.model)
    with atomic_write(folder / LOGITS) as temporary, temporary.open("wb") as file:
        np.save(file, result.validation_logits)
    write_text(folder / STUDY_ID_FILE, search.study_id)
    return RetainedModel(result.model, result.validation_logits)


def delete_surplus_models(search: Search) -> None:
    """Delete the models of all but the best trials, and the checkpoints of trials that have ended."""
    with search.study_lock:
        trials = search.load_trials()
        for trial in rank_trials(trials)[RETAINED_MODELS:]:
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                (search.trial_folder(trial.number) / name).unlink(missing_ok=True)
        for trial in trials:
            if trial.state.is_finished():
                shutil.rmtree(search.checkpoint_folder(trial.number), ignore_errors=True)


def read_validation_logits(search: Search, number: int) -> NDArray[np.float32] | None:
    """Read the validation logits of a finished trial's model.

    Returns:
        Logits of all validation reviews, shape (n_reviews,). None if they are missing, since the folder was
        deleted or is on another machine, or if they are those of another study.
    """
    if not _belongs_to_study(search, number):
        return None
    try:
        logits: NDArray[np.float32] = np.load(search.trial_folder(number) / LOGITS, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return logits if logits.shape == (len(search.reviews.validation),) else None


def load_or_retrain(search: Search, trial: FrozenTrial) -> RetainedModel:
    """Load the retained model of a finished trial; retrain it if the model or its logits are missing.

    Those of another study of the same name count as missing.
    """
    model = _load_model(search.trial_folder(trial.number))
    logits = read_validation_logits(search, trial.number)
    if model is not None and logits is not None:
        return RetainedModel(model, logits)
    name = f"trial {trial.number} (retraining)"
    logger.info(f"trial {trial.number}: its model is missing, training it again")
    params = apply_values(search.params, trial.params)
    result = fit_with_self_training(
        params.model,
        params.train,
        search.reviews,
        lambda metrics: logger.info(f"{name}, {metrics}"),
        name,
    )
    return retain_model(search, trial.number, result)


def _belongs_to_study(search: Search, number: int) -> bool:
    """Return whether the retained files of a trial were written by this study."""
    try:
        return (search.trial_folder(number) / STUDY_ID_FILE).read_text(encoding="utf-8") == search.study_id
    except (OSError, UnicodeDecodeError):
        return False


def _load_model(folder: Path) -> SentimentClassifier | None:
    try:
        return load_model(folder)
    except UserError:  # missing, truncated or corrupt
        return None
