"""Reports of a training to the study and to MLflow, which decide on its pruning, and its duration."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import optuna
from optuna.trial import FrozenTrial

from sentiment.params import Params
from sentiment.tracking import Run
from sentiment.training.epoch_metrics import EpochMetrics, IntermediateEvaluation
from sentiment.tuning.active_trial import ActiveTrial
from sentiment.tuning.trainer import Training, TrialSuspended
from sentiment.tuning.trial_params import CPU_SECONDS, WALL_SECONDS, Progress


class Reporter:
    """Reports each metric of a trial once, to the study and to MLflow; raises TrialPruned to prune it."""

    def __init__(
        self, trial: ActiveTrial, run: Run, params: Params, training: Training, stopwatch: "Stopwatch"
    ) -> None:
        """Start after the last intermediate value that the study already has for the trial."""
        self._trial, self._run, self._training, self._stopwatch = trial, run, training, stopwatch
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

    def log_restored_epochs(self, epochs: Sequence[EpochMetrics]) -> None:
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
            pending, has_abandoned = self._trial.find_missing_reports()
            if has_abandoned:
                raise TrialSuspended
            self._training.wait(pending)
        if prunes:
            raise optuna.TrialPruned


class Stopwatch:
    """Measures the wall and CPU time of a trial in seconds, summed over all processes that ran it."""

    def __init__(
        self, trial: ActiveTrial, wall: float, cpu: float, get_cpu_seconds: Callable[[], float]
    ) -> None:
        """Start measuring.

        Args:
            trial: trial whose user attributes hold the times.
            wall: wall time in seconds that earlier processes took.
            cpu: CPU time in seconds that earlier processes took.
            get_cpu_seconds: clock that measures CPU time.
        """
        self._trial, self._get_cpu_seconds = trial, get_cpu_seconds
        self._wall = time.perf_counter() - wall
        self._cpu = get_cpu_seconds() - cpu

    @classmethod
    def resume(cls, trial: ActiveTrial, stored: FrozenTrial, get_cpu_seconds: Callable[[], float]) -> Self:
        """Start from the times that an earlier process recorded, or from zero."""
        recorded = stored.user_attrs
        return cls(trial, recorded.get(WALL_SECONDS, 0.0), recorded.get(CPU_SECONDS, 0.0), get_cpu_seconds)

    def record(self) -> None:
        """Record the times as user attributes of the trial."""
        self._trial.set_user_attrs(
            {
                WALL_SECONDS: round(time.perf_counter() - self._wall, 3),
                CPU_SECONDS: round(self._get_cpu_seconds() - self._cpu, 3),
            }
        )
