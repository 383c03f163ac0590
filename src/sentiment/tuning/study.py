"""One search: trials in turn, each a training run of its own that may be ended early."""

import math
from dataclasses import dataclass, replace

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.lineage import log_configuration
from sentiment.model.scoring import score
from sentiment.params import Params
from sentiment.params.tune import TuneParams
from sentiment.progress import say
from sentiment.tokens.learning import LearningReviews
from sentiment.tokens.store import TokenizedReviews
from sentiment.tracking import Run
from sentiment.training.figures import Epoch
from sentiment.training.loop import Fitted
from sentiment.training.self_training import fit_with_unlabelled
from sentiment.tuning.attributes import ERROR, Progress, note_progress
from sentiment.tuning.space import starting_point, suggest
from sentiment.tuning.summary import Gain, gain_over_first

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Winner:
    """The finished trial with the highest validation AUC."""

    number: int
    params: Params
    fitted: Fitted
    run: Run
    gain: Gain | None
    """Over trial 0; None where that did not finish."""


def search(params: Params, reviews: LearningReviews, parent: Run) -> tuple[Winner, optuna.Study]:
    """Run `tune.trials` trials, the first with params.yaml's own configuration, and return the best.

    Each trial is a run below `parent`: FINISHED, KILLED where it was pruned, FAILED where it diverged.
    Raises UserError where no trial finished.
    """
    tune = params.tune
    pruner = MedianPruner(n_startup_trials=tune.startup_trials, n_warmup_steps=tune.warmup_epochs)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial(starting_point(params))
    first: Fitted | None = None
    winner: Winner | None = None
    for number in range(tune.trials):
        study.sampler = _sampler(tune, number)
        trial = study.ask()
        trial_params = suggest(trial, params)
        run = parent.nested(f"trial {number}", stage="tune")
        fitted = _run_trial(study, trial, run, trial_params, reviews)
        first = fitted if number == 0 else first
        if fitted and (winner is None or fitted.best.validation_auc > winner.fitted.best.validation_auc):
            winner = Winner(number, trial_params, fitted, run, None)
    if winner is None:
        raise UserError("tune: no trial finished; each trial's MLflow run tells why")
    logits = _logits({winner.number: winner.fitted, 0: first}, reviews.validation)
    gain = gain_over_first(study, winner.number, reviews.validation.labels, logits)
    return replace(winner, gain=gain), study


def _logits(trials: dict[int, Fitted | None], validation: TokenizedReviews) -> dict[int, NDArray[np.float32]]:
    """Return, of the trials that finished, what each one's model says to the validation reviews."""
    return {
        number: score(fitted.model, validation, f"trial {number} on validation")
        for number, fitted in trials.items()
        if fitted is not None
    }


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, run: Run, params: Params, reviews: LearningReviews
) -> Fitted | None:
    """Train one configuration and tell study and run how it ended; None where it was pruned or diverged."""
    learned_from = len(reviews.train) + (params.train.unlabelled != "ignore") * len(reviews.unlabelled)
    steps = math.ceil(learned_from / params.train.batch_size)  # of an epoch

    def on_epoch(epoch: Epoch) -> None:
        run.log_epoch(epoch)
        note_progress(trial, Progress(epoch.number * steps, params.train.epochs * steps))
        trial.report(epoch.validation_auc, epoch.number)
        if epoch.number < params.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    name = f"trial {trial.number}"
    try:
        with run:
            log_configuration(run, params, reviews)
            try:
                fitted = fit_with_unlabelled(params.model, params.train, reviews, on_epoch, name)
            except optuna.TrialPruned:
                run.kill()
                study.tell(trial, state=TrialState.PRUNED)
                say(f"{name}: pruned")
                return None
            run.log_best(fitted.best)
    except TrainingDivergedError as error:
        trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        say(f"{name}: failed: {error}")
        return None
    study.tell(trial, fitted.best.validation_auc)
    say(f"{name}: validation AUC {fitted.best.validation_auc:.4f}")
    return fitted


def _sampler(tune: TuneParams, number: int) -> TPESampler:
    """Return a sampler seeded by the trial's number, not by what the process drew before."""
    seed = int(np.random.SeedSequence([tune.seed, number]).generate_state(1)[0])
    return TPESampler(seed=seed, n_startup_trials=tune.startup_trials)
