"""What belongs to one trial: its lock, its MLflow run, its retained model and logits."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.lineage import STUDY_TAG, TRIAL_TAG
from sentiment.model.classifier import SentimentClassifier, predict_logits
from sentiment.model.model_files import CONFIG_FILE, WEIGHTS_FILE, load_model, save_model
from sentiment.tracking import Run, Store, find_tagged_run, reopen_run, start_run
from sentiment.training.loop import TrainingResult
from sentiment.training.self_training import fit_with_self_training
from sentiment.tuning.holdout import split_validation
from sentiment.tuning.study import STUDY_ID, Search, has_too_many_failures
from sentiment.tuning.trial_params import apply_values, rank_trials

logger = logging.getLogger(__name__)


@contextmanager
def acquire_trial(search: Search) -> Iterator[optuna.Trial | None]:
    """Yield a trial for this process alone, until the block ends; None where there is none to be had now.

    First come trials whose process died: they keep their number and the values that they had drawn. Then
    those that wait, then new ones while there are fewer than `tune.trials`. A trial's lock tells whether
    somebody runs it: the system lets go of it when the process dies.
    """
    with search.study_lock:
        trial, lock = _claim(search)
    try:
        yield trial
    finally:
        if lock:
            lock.release()


def trial_lock(search: Search, number: int) -> FileLock:
    """Return the lock that is held by who runs the trial."""
    return FileLock(search.folder / f"trial-{number}.lock")


def _claim(search: Search) -> tuple[optuna.Trial | None, FileLock | None]:
    study = search.load_study()
    trials = search.load_trials()
    if has_too_many_failures(trials, search.params.tune.max_failed):
        return None, None
    for found in trials:
        if found.state == TrialState.RUNNING:
            lock = trial_lock(search, found.number)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return optuna.Trial(study, found._trial_id), lock
    if len(trials) < search.trial_count or any(trial.state == TrialState.WAITING for trial in trials):
        trial = study.ask()
        lock = trial_lock(search, trial.number)
        lock.acquire()
        return trial, lock
    return None, None


STAGE = "tune"
IDENTITY_TAG = "tune.study.id"
"""What distinguishes the study from one of the same name in another storage."""
FINGERPRINT_TAG = "training.fingerprint"
"""On the run of a trial: the `compute_fingerprint` that its epochs were logged under."""


def open_search_run(store: Store, search: Search) -> Run:
    """Go on in the search's own run, where the store has it; else start it."""
    study = search.load_study()
    identity = {IDENTITY_TAG: study.user_attrs[STUDY_ID]}
    with search.study_lock:  # two that start at once share one
        found = find_tagged_run(store, identity)
        reopened = reopen_run(store, found.id) if found else None
        return reopened or start_run(store, STAGE, STAGE, tags={STUDY_TAG: search.name, **identity})


def open_trial_run(parent: Run, search: Search, number: int, key: str | None = None) -> Run:
    """Reopen a trial's run, where the store has it; else start it. Only who runs the trial may.

    Args:
        parent: the run of the search.
        search: the search.
        number: of the trial.
        key: of the training that starts or resumes. A run with epochs of another one, such as on another
            processor, is moved to the trash and a new one started: that training does not resume.
    """
    found = find_trial_run(parent, number)
    reopened = reopen_run(parent.store, found.id) if found else None
    if reopened is not None and key is not None:
        if reopened.has_epochs and reopened.tags().get(FINGERPRINT_TAG) != key:
            parent.store.client.delete_run(reopened.id)
            reopened = None
        else:
            reopened.tag({FINGERPRINT_TAG: key})
    tags = {STUDY_TAG: search.name, TRIAL_TAG: str(number)} | ({FINGERPRINT_TAG: key} if key else {})
    return reopened or parent.nested(f"trial {number}", STAGE, tags)


def find_trial_run(parent: Run, number: int) -> Run | None:
    """Return a trial's run, as it is; None where the store does not have it."""
    return parent.find_nested({TRIAL_TAG: str(number)})


LOGITS = "validation.npy"
CHECKPOINTS = "checkpoints"
RETAINED_MODELS = 3
"""Of the best trials, of some ten megabytes each; trials that tie or are scored anew may change places."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a finished trial.

    logits: of all validation reviews, shape (reviews,).
    """

    model: SentimentClassifier
    logits: NDArray[np.float32]


def keep(search: Search, number: int, fitted: TrainingResult) -> Kept:
    """Write a finished trial's model and validation logits to its folder."""
    folder = search.trial_folder(number)
    save_model(folder, fitted.model)
    logits = _of_all_validation(search, number, fitted)
    with atomic_write(folder / LOGITS) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
    return Kept(fitted.model, logits)


def delete_surplus_models(search: Search) -> None:
    """Remove what nobody comes back to: models of all but the best trials, checkpoints of ended ones."""
    with search.study_lock:
        trials = search.load_trials()
        holdout = search.params.tune.active_holdout
        kept = max(RETAINED_MODELS, holdout.trials if holdout else 1)
        for trial in rank_trials(trials)[kept:]:
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                (search.trial_folder(trial.number) / name).unlink(missing_ok=True)
        for trial in trials:
            if trial.state.is_finished():
                shutil.rmtree(search.trial_folder(trial.number) / CHECKPOINTS, ignore_errors=True)


def validation_logits(search: Search, number: int) -> NDArray[np.float32] | None:
    """Return what a finished trial's model said to the validation reviews, in their order.

    Shape (reviews,). None where they are not kept: the folder was removed, or is another machine's.
    """
    try:
        logits: NDArray[np.float32] = np.load(search.trial_folder(number) / LOGITS, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return logits if logits.shape == (len(search.reviews.validation),) else None


def kept(search: Search, trial: FrozenTrial) -> Kept:
    """Return what is kept of one of the best trials; where it is gone, train that configuration again."""
    model, logits = _kept_model(search.trial_folder(trial.number)), validation_logits(search, trial.number)
    if model is not None and logits is not None:
        return Kept(model, logits)
    name = f"trial {trial.number}, again"
    logger.info(f"trial {trial.number}: its model is not there any more, training it again")
    params = apply_values(search.params, trial.params)
    fitted = fit_with_self_training(
        params.model, params.train, search.tuning_reviews, lambda epoch: logger.info(f"{name}, {epoch}"), name
    )
    return keep(search, trial.number, fitted)


def _of_all_validation(search: Search, number: int, fitted: TrainingResult) -> NDArray[np.float32]:
    """Return the logits of all validation reviews; the training has scored those that steered it."""
    folds = split_validation(search.reviews, search.params.tune.active_holdout)
    if folds is None:
        return fitted.validation_logits
    validation = search.reviews.validation
    logits = np.empty(len(validation), dtype=np.float32)
    logits[folds.tuning] = fitted.validation_logits
    logits[folds.holdout] = predict_logits(
        fitted.model, validation.take(folds.holdout), f"trial {number}, second fold"
    )
    return logits


def _kept_model(folder: Path) -> SentimentClassifier | None:
    try:
        return load_model(folder)
    except UserError:  # missing or torn
        return None
