"""One trial of a search: a training that may be pruned, or fail without ending the search."""

import logging
import time
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sentiment.errors import TrainingDivergedError
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
from sentiment.tuning.trial_records import CHECKPOINTS, delete_surplus_models, open_trial_run, retain_model

logger = logging.getLogger(__name__)

FAILURES = (TrainingDivergedError, MemoryError, RuntimeError)
"""Errors that may depend on the configuration of a trial. Torch raises RuntimeError when memory runs out."""


def run_trial(search: Search, parent: Run, trial: optuna.Trial) -> None:
    """Train one configuration and record the outcome, in MLflow first and in the study last.

    The MLflow run of the trial ends with the status FINISHED; KILLED if the trial was pruned; FAILED if the
    training diverged or ran out of memory. A trial whose process was killed resumes from its checkpoint, in
    the same run. The outcome is written to the study last; until then, a restarted search resumes the trial.

    Args:
        search: search that the trial belongs to.
        parent: MLflow run of the search.
        trial: trial to run, which `acquire_trial` has locked for this process.

    Raises:
        UserError: the drawn values are an invalid combination.
    """
    name = f"trial {trial.number}"
    params = suggest_params(trial, search.params)
    key = compute_fingerprint(params.model, params.train, search.reviews)
    checkpoints = search.trial_folder(trial.number) / CHECKPOINTS
    run = open_trial_run(parent, search, trial.number, str(key))
    stopwatch = Stopwatch.resume(trial)
    with open_checkpoint(checkpoints, key, load_settings().checkpoint_minutes) as checkpoint:
        state, auc = TrialState.PRUNED, None
        with run:  # records a failed trial in MLflow before the study, since MLflow may fail as well
            try:
                origin = build_origin(params, search.reviews, search.name, trial.number)
                log_configuration(run, params, search.reviews, origin)
                result = _fit(search, trial, run, params, checkpoint, stopwatch)
                retain_model(search, trial.number, result)
                run.log_best(result.best, "tuning")
                state, auc = TrialState.COMPLETE, result.best.validation_auc
            except optuna.TrialPruned:
                run.kill()
            except UpdateFinishedTrialError:  # a RuntimeError as well, but not a failure of the training
                raise
            except FAILURES as error:
                state = TrialState.FAIL
                run.fail(f"{type(error).__name__}: {error}")
                line, *_ = str(error).splitlines() or [""]  # torch appends positions in its own code
                trial.set_user_attr(ERROR, f"{type(error).__name__}: {line}")
        stopwatch.record()
        ended_trial = trial.study.tell(trial, auc, state)
        logger.info(f"{name}: {describe_outcome(ended_trial)}")
    release_memory()
    delete_surplus_models(search)


def describe_outcome(trial: FrozenTrial) -> str:
    """Return the outcome of a trial that has ended, as one line of text."""
    match trial.state:
        case TrialState.COMPLETE:
            return f"tuning AUC {trial.value:.4f}"
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
    stopwatch: "Stopwatch",
) -> TrainingResult:
    """Log the checkpoint's epochs that the run does not have yet, then start or resume the training."""
    reporter = Reporter(trial, run, params, stopwatch)
    reporter.log_restored_epochs(checkpoint.epochs if checkpoint else [])
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
    """Reports each metric of a trial once, to the study and to MLflow; raises TrialPruned to prune it."""

    def __init__(self, trial: optuna.Trial, run: Run, params: Params, stopwatch: "Stopwatch") -> None:
        """Start after the last intermediate value that the study already has for the trial."""
        self._trial, self._run, self._stopwatch = trial, run, stopwatch
        self._evaluations = params.train.epochs * params.tune.evaluations_per_epoch
        reported = trial.storage.get_trial(trial._trial_id).intermediate_values
        self._last_index = max(reported, default=0)

    def on_evaluation(self, evaluation: IntermediateEvaluation) -> None:
        """Report an intermediate evaluation, unless the trial reported it before it was resumed."""
        if evaluation.evaluation_index < self._last_index:
            return
        if evaluation.evaluation_index > self._last_index:
            self._last_index = evaluation.evaluation_index
            record_progress(self._trial, Progress(evaluation.optimizer_steps, evaluation.planned_steps))
            self._trial.report(evaluation.intermediate_auc, evaluation.evaluation_index)
        if not evaluation.ends_epoch:  # at the end of an epoch, `on_epoch` logs its metrics first
            self._prune_if_due()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Log the metrics of an epoch, and prune the trial if its pruner decides so."""
        self._run.log_epoch(metrics, "tuning")
        self._stopwatch.record()
        self._prune_if_due()

    def log_restored_epochs(self, epochs: list[EpochMetrics]) -> None:
        """Log the metrics of the checkpoint's epochs that the run does not have yet."""
        for metrics in epochs:
            self._run.log_epoch(metrics, "tuning")
        if epochs:
            self._prune_if_due()

    def _prune_if_due(self) -> None:
        # After the last evaluation the training is complete, even if the process was killed at that moment.
        if self._last_index < self._evaluations and self._trial.should_prune():
            raise optuna.TrialPruned


class Stopwatch:
    """Measures the wall and CPU time of a trial in seconds, summed over all processes that ran it."""

    def __init__(self, trial: optuna.Trial, wall: float, cpu: float) -> None:
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
    def resume(cls, trial: optuna.Trial) -> Self:
        """Start from the times that an earlier process recorded, or from zero."""
        recorded = trial.user_attrs
        return cls(trial, recorded.get(WALL_SECONDS, 0.0), recorded.get(CPU_SECONDS, 0.0))

    def record(self) -> None:
        """Record the times as user attributes of the trial."""
        self._trial.set_user_attr(WALL_SECONDS, round(time.perf_counter() - self._wall, 3))
        self._trial.set_user_attr(CPU_SECONDS, round(time.process_time() - self._cpu, 3))
