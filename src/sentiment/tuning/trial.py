"""The trials of a search: trainings that may be pruned, or fail without ending the search."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.lineage import build_origin, log_configuration
from sentiment.params import Params
from sentiment.settings import load_settings
from sentiment.tracking import Run
from sentiment.training.checkpoint import Checkpoint, open_checkpoint
from sentiment.training.epoch_metrics import EpochMetrics, EvaluationSchedule, IntermediateEvaluation
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.loop import TrainingResult
from sentiment.training.runtime import release_memory
from sentiment.training.self_training import fit_with_self_training
from sentiment.tuning.active_trial import ActiveTrial, acquire_trial
from sentiment.tuning.study import Search
from sentiment.tuning.trial_params import (
    CPU_SECONDS,
    ERROR,
    WALL_SECONDS,
    Progress,
    apply_values,
    get_error,
)
from sentiment.tuning.trial_records import CHECKPOINTS, delete_surplus_models, open_trial_run, retain_model

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Interval at which a process looks for an available trial, and a trial for the reports that it needs."""

MAX_ATTEMPTS = 3
"""Number of attempts at a trial, which may run out of memory or crash its worker, before the search stops."""


class _TrialSuspended(Exception):  # noqa: N818
    """A trial waits for an earlier one that no process runs, and makes way for it."""


def run_available_trials(
    search: Search, run: Run, on_start: Callable[[int], None] = lambda number: None
) -> None:
    """Run trials in this process, alone or beside other workers, until the search is finished.

    While no trial is available, this function waits for those that other workers run: their results are
    needed to draw the next trial, and if a worker crashes, its trial becomes available again.

    Args:
        search: search whose trials to run.
        run: MLflow run of the search.
        on_start: callback that receives the number of each trial before it starts or resumes.

    Raises:
        UserError: a trial could not be completed in `MAX_ATTEMPTS` attempts.
    """
    failed_attempts: Counter[int] = Counter()
    waiting = False
    while not search.is_finished():
        with acquire_trial(search) as trial:
            if trial is not None:
                waiting = False
                on_start(trial.number)
                _attempt_trial(trial, run, failed_attempts)
                continue
        if not waiting:
            logger.info("waiting for trials that other processes run")
            waiting = True
        time.sleep(POLL_SECONDS)


def _attempt_trial(trial: ActiveTrial, run: Run, failed_attempts: Counter[int]) -> None:
    """Run a trial; if it fails for a reason that may not recur, leave it in the study to be resumed.

    Such a trial is not marked as failed: whether memory runs out depends on the machine and on what else it
    runs, and the values of later trials must not depend on that.

    Raises:
        UserError: this was the last of `MAX_ATTEMPTS` attempts.
    """
    try:
        run_trial(trial, run)
    except UpdateFinishedTrialError:  # a RuntimeError as well, but another program ended the trial
        raise
    except (MemoryError, RuntimeError) as error:
        failed_attempts[trial.number] += 1
        line, *_ = str(error).splitlines() or [""]  # torch appends positions in its own code
        cause = f"{type(error).__name__}: {line}"
        if failed_attempts[trial.number] >= MAX_ATTEMPTS:
            raise build_attempts_error(trial.number, cause) from error
        logger.warning(f"trial {trial.number}: {cause}; trying again")
    release_memory()  # outside the handler, whose exception refers to the tensors of the training


def build_attempts_error(number: int, cause: str) -> UserError:
    """Build the error that stops a search after `MAX_ATTEMPTS` failed attempts at a trial."""
    return UserError(
        f"tune: trial {number} could not be completed in {MAX_ATTEMPTS} attempts; the last one: {cause}; "
        "start the same command again to resume it, for example with a lower TUNE_WORKERS or on a machine "
        "with more memory, or exclude its values from tune.space"
    )


def run_trial(trial: ActiveTrial, parent: Run) -> None:
    """Train one configuration and record the outcome, in MLflow first and in the study last.

    The MLflow run of the trial ends with the status FINISHED; KILLED if the trial was pruned; FAILED if the
    training diverged. A trial whose process was killed resumes from its checkpoint, in the same run. The
    outcome is written to the study last; until then, a restarted search resumes the trial. If the trial has
    to wait for an earlier one that no process runs after a crash, this function returns, so that the process
    can run that one first.

    Args:
        trial: trial to run.
        parent: MLflow run of the search.

    Raises:
        MemoryError, RuntimeError: the training failed for a reason that may not recur. Torch raises
            RuntimeError when memory runs out.
    """
    search, name = trial.search, f"trial {trial.number}"
    stored = trial.load()
    params = apply_values(search.params, stored.params)
    key = compute_fingerprint(params.model, params.train, search.reviews)
    checkpoints = search.trial_folder(trial.number) / CHECKPOINTS
    run = open_trial_run(parent, search, trial.number, str(key))
    stopwatch = Stopwatch.resume(trial, stored)
    minutes = load_settings().checkpoint_minutes
    with suppress(_TrialSuspended), open_checkpoint(checkpoints, key, minutes) as checkpoint:
        state, auc = TrialState.RUNNING, None
        with run:  # records a failed trial in MLflow before the study, since MLflow may fail as well
            try:
                origin = build_origin(params, search.reviews, search.name, trial.number)
                log_configuration(run, params, search.reviews, origin)
                result = _fit(trial, run, params, checkpoint, stopwatch)
                retain_model(search, trial.number, result)
                run.log_best(result.best)
                state, auc = TrialState.COMPLETE, result.best.validation_auc
            except optuna.TrialPruned:
                state = TrialState.PRUNED
                run.kill()
            except _TrialSuspended:
                run.kill()
            except TrainingDivergedError as error:
                state = TrialState.FAIL
                run.fail(f"{type(error).__name__}: {error}")
                trial.set_user_attrs({ERROR: f"{type(error).__name__}: {error}"})
        stopwatch.record()
        if state == TrialState.RUNNING:
            logger.info(f"{name}: suspended, since it needs the reports of a trial whose worker crashed")
            raise _TrialSuspended  # any exception retains the checkpoint
        ended_trial = trial.record_outcome(state, auc)
        logger.info(f"{name}: {describe_outcome(ended_trial)}")
    delete_surplus_models(search)


def describe_outcome(trial: FrozenTrial) -> str:
    """Return the outcome of a trial that has ended, as one line of text."""
    match trial.state:
        case TrialState.COMPLETE:
            return f"validation AUC {trial.value:.4f}"
        case TrialState.PRUNED:
            return "pruned"
        case _:
            return f"failed: {get_error(trial)}"


def _fit(
    trial: ActiveTrial,
    run: Run,
    params: Params,
    checkpoint: Checkpoint | None,
    stopwatch: "Stopwatch",
) -> TrainingResult:
    """Log the checkpoint's epochs that the run does not have yet, then start or resume the training."""
    reporter = Reporter(trial, run, params, stopwatch)
    reporter.log_restored_epochs(checkpoint.epochs if checkpoint else [])
    return fit_with_self_training(
        params.model,
        params.train,
        trial.search.reviews,
        reporter.on_epoch,
        f"trial {trial.number}",
        checkpoint,
        EvaluationSchedule(params.tune.evaluations_per_epoch, reporter.on_evaluation),
    )


class Reporter:
    """Reports each metric of a trial once, to the study and to MLflow; raises TrialPruned to prune it."""

    def __init__(self, trial: ActiveTrial, run: Run, params: Params, stopwatch: "Stopwatch") -> None:
        """Start after the last intermediate value that the study already has for the trial."""
        self._trial, self._run, self._stopwatch = trial, run, stopwatch
        self._evaluations = params.train.epochs * params.tune.evaluations_per_epoch
        self._last_index = trial.load().last_step or 0

    def on_evaluation(self, evaluation: IntermediateEvaluation) -> None:
        """Report an intermediate evaluation, unless the trial reported it before it was resumed."""
        if evaluation.evaluation_index < self._last_index:
            return
        if evaluation.evaluation_index > self._last_index:
            self._last_index = evaluation.evaluation_index
            progress = Progress(evaluation.optimizer_steps, evaluation.planned_steps)
            self._trial.set_user_attrs(progress.to_user_attrs())
            self._trial.report(evaluation.evaluation_index, evaluation.intermediate_auc)
        if not evaluation.ends_epoch:  # at the end of an epoch, `on_epoch` logs its metrics first
            self._prune_if_due()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Log the metrics of an epoch, and prune the trial if its pruner decides so."""
        self._run.log_epoch(metrics)
        self._stopwatch.record()
        self._prune_if_due()

    def log_restored_epochs(self, epochs: list[EpochMetrics]) -> None:
        """Log the metrics of the checkpoint's epochs that the run does not have yet."""
        for metrics in epochs:
            self._run.log_epoch(metrics)
        if epochs:
            self._prune_if_due()

    def _prune_if_due(self) -> None:
        """Prune the trial if its pruner decides so; wait if that depends on earlier trials' next reports.

        Waiting cannot deadlock, since a trial waits only for trials of lower number.
        """
        # After the last evaluation the training is complete, even if the process was killed at that moment.
        if self._last_index == self._evaluations:
            return
        while (prunes := self._trial.decide_pruning()) is None:
            if self._trial.waits_for_abandoned_trial():
                raise _TrialSuspended
            time.sleep(POLL_SECONDS)
        if prunes:
            raise optuna.TrialPruned


class Stopwatch:
    """Measures the wall and CPU time of a trial in seconds, summed over all processes that ran it."""

    def __init__(self, trial: ActiveTrial, wall: float, cpu: float) -> None:
        """Start measuring.

        Args:
            trial: trial whose user attributes hold the times.
            wall: wall time in seconds that earlier processes took.
            cpu: CPU time in seconds that earlier processes took.
        """
        self._trial = trial
        self._wall = time.perf_counter() - wall
        self._cpu = time.process_time() - cpu

    @classmethod
    def resume(cls, trial: ActiveTrial, stored: FrozenTrial) -> Self:
        """Start from the times that an earlier process recorded, or from zero."""
        recorded = stored.user_attrs
        return cls(trial, recorded.get(WALL_SECONDS, 0.0), recorded.get(CPU_SECONDS, 0.0))

    def record(self) -> None:
        """Record the times as user attributes of the trial."""
        self._trial.set_user_attrs(
            {
                WALL_SECONDS: round(time.perf_counter() - self._wall, 3),
                CPU_SECONDS: round(time.process_time() - self._cpu, 3),
            }
        )
