"""One search: trials in turn, each a training run of its own that may be ended early."""

from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.lineage import log_configuration
from sentiment.model.scoring import score
from sentiment.params import Params
from sentiment.progress import say
from sentiment.tokens.learning import LearningReviews
from sentiment.tracking import Run
from sentiment.training.checks import Check, Checks
from sentiment.training.figures import Epoch
from sentiment.training.loop import Fitted
from sentiment.training.self_training import fit_with_unlabelled
from sentiment.tuning.confirm import Confirmed, confirm, is_on, steering
from sentiment.tuning.space import suggest
from sentiment.tuning.strategies import make_pruner, make_sampler, starting_trials, trials_in_all

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY = "tune"
"""Hyperband's brackets follow from the study's name and the trial's number: it must not be drawn."""


@dataclass(frozen=True)
class Finished:
    """A trial that was trained to its end."""

    number: int
    params: Params
    fitted: Fitted
    run: Run


@dataclass(frozen=True)
class Found:
    """What a search ends with."""

    winner: Finished
    study: optuna.Study
    confirmed: list[Confirmed]
    """The best trials on reviews set aside, the winner first; empty where none were."""


def search(params: Params, reviews: LearningReviews, parent: Run) -> Found:
    """Run `tune.trials` trials, the first with params.yaml's own configuration, and choose the best.

    Each trial is a run below `parent`: FINISHED, KILLED where it was pruned, FAILED where it diverged.
    Raises UserError where no trial finished.
    """
    tune = params.tune
    study = optuna.create_study(
        study_name=STUDY, direction="maximize", sampler=make_sampler(tune), pruner=make_pruner(params)
    )
    for values in starting_trials(params, study._storage):
        study.enqueue_trial(values, skip_if_exists=True)
    kept: list[Finished] = []
    for number in range(trials_in_all(params)):
        trial = study.ask()
        trial_params = suggest(trial, params)
        run = parent.nested(f"trial {number}", stage="tune")
        fitted = _run_trial(study, trial, run, trial_params, reviews)
        if fitted:
            kept.append(Finished(number, trial_params, fitted, run))
            kept.sort(key=lambda finished: -finished.fitted.best.validation_auc)
            del kept[tune.confirm.trials if tune.confirm else 1 :]
    if not kept:
        raise UserError("tune: no trial finished; each trial's MLflow run tells why")
    return _choose(kept, params, reviews, study)


def _choose(kept: list[Finished], params: Params, reviews: LearningReviews, study: optuna.Study) -> Found:
    """Take the best trial, or the best one on the second fold; kept: the best on the first fold first."""
    confirmation = params.tune.confirm
    if confirmation is None or not is_on(confirmation):
        return Found(kept[0], study, confirmed=[])
    logits: dict[int, NDArray[np.float32]] = {
        finished.number: score(finished.fitted.model, reviews.validation, f"confirm trial {finished.number}")
        for finished in kept
    }
    confirmed = confirm(logits, reviews.validation.labels, confirmation)
    by_number = {finished.number: finished for finished in kept}
    return Found(by_number[confirmed[0].trial], study, confirmed)


class Reporter:
    """Tells a trial's figures to study and run; raises TrialPruned where the trial lags behind."""

    def __init__(self, trial: optuna.Trial, run: Run, params: Params) -> None:
        self._trial, self._run = trial, run
        self._epochs = params.train.epochs
        self._told = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self._last: Check | None = None

    def on_check(self, check: Check) -> None:
        """Report a check, once: a training that goes on tells some again."""
        self._last = check
        if check.number not in self._told:
            self._told.add(check.number)
            self._trial.report(check.validation_auc, check.number)
        if not check.ends_epoch:  # at the end of an epoch its figures are told first
            self._end_if_behind()

    def on_epoch(self, epoch: Epoch) -> None:
        """Log an epoch."""
        self._run.log_epoch(epoch)
        if epoch.number < self._epochs:
            self._end_if_behind()

    def note_steps(self) -> None:
        """Note in the study how many steps the trial took, of how many."""
        if self._last is not None:
            self._trial.set_user_attr("steps", self._last.steps)
            self._trial.set_user_attr("planned_steps", self._last.planned_steps)

    def _end_if_behind(self) -> None:
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, run: Run, params: Params, reviews: LearningReviews
) -> Fitted | None:
    """Train one configuration and tell study and run how it ended; None where it was pruned or diverged."""
    name = f"trial {trial.number}"
    reporter = Reporter(trial, run, params)
    seen = steering(reviews, params.tune.confirm)
    checks = Checks(params.tune.checks_per_epoch, reporter.on_check)
    try:
        with run:
            log_configuration(run, params, reviews)
            try:
                fitted = fit_with_unlabelled(
                    params.model, params.train, seen, reporter.on_epoch, name, checks=checks
                )
            except optuna.TrialPruned:
                run.kill()
                reporter.note_steps()
                study.tell(trial, state=TrialState.PRUNED)
                say(f"{name}: pruned")
                return None
            run.log_best(fitted.best)
    except TrainingDivergedError as error:
        reporter.note_steps()
        study.tell(trial, state=TrialState.FAIL)
        say(f"{name}: failed: {error}")
        return None
    reporter.note_steps()
    study.tell(trial, fitted.best.validation_auc)
    say(f"{name}: validation AUC {fitted.best.validation_auc:.4f}")
    return fitted
