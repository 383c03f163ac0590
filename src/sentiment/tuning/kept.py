"""What a search keeps of its trials: validation logits of all that finished, models of the best."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import UserError
from sentiment.lineage import log_configuration
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.files import CONFIG, WEIGHTS, load_model, save_model
from sentiment.outputs import replacing
from sentiment.params import Params
from sentiment.progress import say
from sentiment.tracking import Run
from sentiment.training.loop import Fitted
from sentiment.training.self_training import fit_with_unlabelled
from sentiment.tuning.runs import find_trial_run, open_trial_run
from sentiment.tuning.space import configured
from sentiment.tuning.study import Search

LOGITS = "validation.npy"
CHECKPOINTS = "checkpoints"
KEPT_MODELS = 3
"""Of the best trials, of some ten megabytes each; trials that tie or are scored anew may change places."""


@dataclass(frozen=True)
class Winner:
    """The finished trial with the highest validation AUC; the first of several."""

    number: int
    params: Params
    model: SentimentClassifier
    validation_auc: float
    run: Run


def keep(search: Search, number: int, fitted: Fitted) -> None:
    """Write a finished trial's model and validation logits to its folder."""
    folder = search.trial_folder(number)
    save_model(folder, fitted.model)
    with replacing(folder / LOGITS) as temporary, temporary.open("wb") as file:
        np.save(file, fitted.logits)


def keep_best_only(search: Search) -> None:
    """Remove what nobody comes back to: models of all but the best trials, checkpoints of ended ones."""
    with search.claims:
        trials = search.trials()
        for trial in ranked(trials)[KEPT_MODELS:]:
            for name in (WEIGHTS, CONFIG):
                (search.trial_folder(trial.number) / name).unlink(missing_ok=True)
        for trial in trials:
            if trial.state.is_finished():
                shutil.rmtree(search.trial_folder(trial.number) / CHECKPOINTS, ignore_errors=True)


def ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the finished trials, best first."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(finished, key=lambda trial: (-_auc(trial), trial.number))


def validation_logits(search: Search, number: int) -> NDArray[np.float32] | None:
    """Return what a finished trial's model said to the validation reviews, in their order.

    Shape (reviews,). None where they are not kept: the folder was removed, or is another machine's.
    """
    try:
        logits: NDArray[np.float32] = np.load(search.trial_folder(number) / LOGITS, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return logits if logits.shape == (len(search.reviews.validation),) else None


def find_winner(search: Search, parent: Run) -> Winner:
    """Return the best of the finished trials, of which there must be one; its model as it was kept.

    Where the model is gone, that configuration is trained again.
    """
    best = ranked(search.trials())[0]
    params = configured(search.params, best.params)
    model = _kept_model(search.trial_folder(best.number))
    if model is None:
        say(f"trial {best.number}: its model is not there any more, training it again")
        name = f"trial {best.number}, again"
        fitted = fit_with_unlabelled(
            params.model, params.train, search.reviews, lambda epoch: say(f"{name}, {epoch}"), name
        )
        keep(search, best.number, fitted)
        model = fitted.model
    run = find_trial_run(parent, best.number)
    if run is None:  # the tracking store is another than that of the day
        with open_trial_run(parent, search, best.number) as run:
            log_configuration(run, params, search.reviews)
    return Winner(best.number, params, model, _auc(best), run)


def _kept_model(folder: Path) -> SentimentClassifier | None:
    try:
        return load_model(folder)
    except UserError:  # missing or torn
        return None


def _auc(trial: FrozenTrial) -> float:
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no AUC")
    return trial.value
