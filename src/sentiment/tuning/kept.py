"""What a search keeps of its trials: validation logits of all that finished, models of the best."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.files import CONFIG, WEIGHTS, load_model, save_model
from sentiment.model.scoring import score
from sentiment.outputs import replacing
from sentiment.progress import say
from sentiment.training.loop import Fitted
from sentiment.training.self_training import fit_with_unlabelled
from sentiment.tuning.attributes import ranked
from sentiment.tuning.confirm import folds_of
from sentiment.tuning.space import configured
from sentiment.tuning.study import Search

LOGITS = "validation.npy"
CHECKPOINTS = "checkpoints"
KEPT_MODELS = 3
"""Of the best trials, of some ten megabytes each; trials that tie or are scored anew may change places."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a finished trial.

    logits: of all validation reviews, shape (reviews,).
    """

    model: SentimentClassifier
    logits: NDArray[np.float32]


def keep(search: Search, number: int, fitted: Fitted) -> Kept:
    """Write a finished trial's model and validation logits to its folder."""
    folder = search.trial_folder(number)
    save_model(folder, fitted.model)
    logits = _of_all_validation(search, number, fitted)
    with replacing(folder / LOGITS) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
    return Kept(fitted.model, logits)


def keep_best_only(search: Search) -> None:
    """Remove what nobody comes back to: models of all but the best trials, checkpoints of ended ones."""
    with search.claims:
        trials = search.trials()
        confirmation = search.params.tune.confirmation
        kept = max(KEPT_MODELS, confirmation.trials if confirmation else 1)
        for trial in ranked(trials)[kept:]:
            for name in (WEIGHTS, CONFIG):
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
    say(f"trial {trial.number}: its model is not there any more, training it again")
    params = configured(search.params, trial.params)
    fitted = fit_with_unlabelled(
        params.model, params.train, search.steering, lambda epoch: say(f"{name}, {epoch}"), name
    )
    return keep(search, trial.number, fitted)


def _of_all_validation(search: Search, number: int, fitted: Fitted) -> NDArray[np.float32]:
    """Return the logits of all validation reviews; the training has scored those that steered it."""
    folds = folds_of(search.reviews, search.params.tune.confirmation)
    if folds is None:
        return fitted.logits
    validation = search.reviews.validation
    logits = np.empty(len(validation), dtype=np.float32)
    logits[folds.first] = fitted.logits
    logits[folds.second] = score(fitted.model, validation.take(folds.second), f"trial {number}, second fold")
    return logits


def _kept_model(folder: Path) -> SentimentClassifier | None:
    try:
        return load_model(folder)
    except UserError:  # missing or torn
        return None
