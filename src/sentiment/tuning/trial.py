"""One trial: a training run of its own, which may be ended early, and may fail without ending the search."""

import logging
import time
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import TrainingDivergedError
from sentiment.lineage import log_configuration, origin_of
from sentiment.params import Params
from sentiment.settings import load_settings
from sentiment.tracking import Run
from sentiment.training.checkpoint import Checkpoint, open_checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, EvaluationSchedule, IntermediateEvaluation
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.loop import TrainingResult
from sentiment.training.runtime import release_memory
from sentiment.training.self_training import fit_with_self_training
from sentiment.tuning.study import Search
from sentiment.tuning.trial_params import (
    CPU_SECONDS,
    ERROR,
    WALL_SECONDS,
    Progress,
    get_error,
    record_progress,
    suggest_params,
)
from sentiment.tuning.trial_records import CHECKPOINTS, delete_surplus_models, keep, open_trial_run

logger = logging.getLogger(__name__)


FAILURES = (TrainingDivergedError, MemoryError, RuntimeError)
"""What one configuration may do wrong and another right. Torch raises RuntimeError when memory runs out."""


def run_trial(search: Search, parent: Run, trial: optuna.Trial) -> None:
    """Train one configuration and tell MLflow, then the study, how it ended.

    Its run is FINISHED, KILLED where the trial was pruned, FAILED where it diverged or ran out of memory. A
    trial that was killed before goes on from its checkpoint, in the same run. Until the study is told how it
    ended, somebody may still have to run it again: so that comes after all else.
    Raises UserError where the values drawn do not go together.
    """
    name = f"trial {trial.number}"
    params = suggest_params(trial, search.params)
    key = compute_fingerprint(params.model, params.train, search.reviews)
    checkpoints = search.trial_folder(trial.number) / CHECKPOINTS
    run = open_trial_run(parent, search, trial.number, str(key))
    watch = Stopwatch.go_on(trial)
    with open_checkpoint(checkpoints, key, load_settings().checkpoint_minutes) as checkpoint:
        state, auc = TrialState.PRUNED, None
        with run:  # a failed trial too is told to MLflow first: that may fail in its turn
            try:
                origin = origin_of(params, search.reviews, search.name, trial.number)
                log_configuration(run, params, search.reviews, origin)
                fitted = _fit(search, trial, run, params, checkpoint, watch)
                keep(search, trial.number, fitted)
                run.log_best(fitted.best, "tuning")
                state, auc = TrialState.COMPLETE, fitted.best.validation_auc
            except optuna.TrialPruned:
                run.kill()
            except UpdateFinishedTrialError:  # a RuntimeError too; the training itself has not failed
                raise
            except FAILURES as error:
                state = TrialState.FAIL
                run.fail(f"{type(error).__name__}: {error}")
                line, *_ = str(error).splitlines() or [""]  # torch adds where in its own code
                trial.set_user_attr(ERROR, f"{type(error).__name__}: {line}")
        watch.note()
        told = trial.study.tell(trial, auc, state)
        logger.info(f"{name}: {describe_outcome(told)}")
    release_memory()
    delete_surplus_models(search)


def describe_outcome(trial: FrozenTrial) -> str:
    """Say how a trial ended."""
    match trial.state:
        case TrialState.COMPLETE:
            return f"validation AUC {trial.value:.4f}"
        case TrialState.PRUNED:
            return "pruned"
        case _:
            return f"failed: {get_error(trial)}"


def _fit(
    search: Search,
    trial: optuna.Trial,
    run: Run,
    params: Params,
    checkpoint: Checkpoint | None,
    watch: "Stopwatch",
) -> TrainingResult:
    """Train; epochs that were over when the trial was killed are told again where they were not kept."""
    reporter = Reporter(trial, run, params, watch)
    reporter.go_on(checkpoint.epochs if checkpoint else [])
    return fit_with_self_training(
        params.model,
        params.train,
        search.tuning_reviews,
        reporter.on_epoch,
        f"trial {trial.number}",
        checkpoint,
        EvaluationSchedule(params.tune.evaluations_per_epoch, reporter.on_evaluation),
    )


class Reporter:
    """Tells a trial's figures to study and run, once; raises TrialPruned where the trial lags behind."""

    def __init__(self, trial: optuna.Trial, run: Run, params: Params, watch: "Stopwatch") -> None:
        """Take a trial that may have been told something before."""
        self._trial, self._run, self._watch = trial, run, watch
        self._checks = params.train.epochs * params.tune.evaluations_per_epoch
        told = trial.storage.get_trial(trial._trial_id).intermediate_values
        self._last = max(told, default=0)

    def on_evaluation(self, check: IntermediateEvaluation) -> None:
        """Report a check: a training that goes on tells some again."""
        if check.evaluation_index < self._last:
            return
        if check.evaluation_index > self._last:
            self._last = check.evaluation_index
            record_progress(self._trial, Progress(check.optimizer_steps, check.planned_steps))
            self._trial.report(check.intermediate_auc, check.evaluation_index)
        if not check.ends_epoch:  # at the end of an epoch its figures are told first
            self._end_if_behind()

    def on_epoch(self, epoch: EpochMetrics) -> None:
        """Log an epoch."""
        self._run.log_epoch(epoch, "tuning")
        self._watch.note()
        self._end_if_behind()

    def go_on(self, epochs: list[EpochMetrics]) -> None:
        """Log the epochs that were over when the trial was killed, where the run does not have them yet."""
        for epoch in epochs:
            self._run.log_epoch(epoch, "tuning")
        if epochs:
            self._end_if_behind()

    def _end_if_behind(self) -> None:
        # Nobody judges the last check: the trial is at its end, also where it was killed after that check.
        if self._last < self._checks and self._trial.should_prune():
            raise optuna.TrialPruned


class Stopwatch:
    """What a trial has taken, over all processes that ran it: seconds on the clock and of the processors."""

    def __init__(self, trial: optuna.Trial, wall: float, cpu: float) -> None:
        """Start, with what was taken before."""
        self._trial = trial
        self._wall = time.perf_counter() - wall
        self._cpu = time.process_time() - cpu

    @classmethod
    def go_on(cls, trial: optuna.Trial) -> Self:
        """Go on from where the trial's last process left it."""
        taken = trial.user_attrs
        return cls(trial, taken.get(WALL_SECONDS, 0.0), taken.get(CPU_SECONDS, 0.0))

    def note(self) -> None:
        """Write it into the study."""
        self._trial.set_user_attr(WALL_SECONDS, round(time.perf_counter() - self._wall, 3))
        self._trial.set_user_attr(CPU_SECONDS, round(time.process_time() - self._cpu, 3))
