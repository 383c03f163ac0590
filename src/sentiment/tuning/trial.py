"""The trials of a search: trainings that may be pruned, or fail without ending the search."""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.lineage import build_origin, log_configuration
from sentiment.tracking import Run
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.runtime import release_memory
from sentiment.tuning.active_trial import ActiveTrial, acquire_trial
from sentiment.tuning.reporter import Reporter, Stopwatch
from sentiment.tuning.study import Search
from sentiment.tuning.trainer import Trainer, TrialSuspended
from sentiment.tuning.trial_params import ERROR, apply_values, get_error
from sentiment.tuning.trial_records import delete_surplus_models, open_trial_run, retain_model

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Number of attempts at a trial, which may run out of memory or crash its worker, before the search stops."""


def run_available_trials(
    search: Search,
    run: Run,
    trainer: Trainer,
    failed_attempts: Counter[int] | None = None,
    on_start: Callable[[int], None] = lambda number: None,
) -> None:
    """Run trials as one worker, alone or beside others, until the search is finished.

    While no trial is available, this function waits for those that other workers run: their results are
    needed to draw the next trial, and if a worker crashes, its trial becomes available again.

    Args:
        search: search whose trials to run.
        run: MLflow run of the search.
        trainer: where the worker trains.
        failed_attempts: number of failed attempts by trial number, if several workers share it.
        on_start: callback that receives the number of each trial before it starts or resumes.

    Raises:
        UserError: a trial could not be completed in `MAX_ATTEMPTS` attempts.
    """
    failed_attempts = Counter() if failed_attempts is None else failed_attempts
    while not search.is_finished():
        if trainer.is_available():
            with acquire_trial(search) as trial:
                if trial is not None:
                    on_start(trial.number)
                    _attempt_trial(trial, run, trainer, failed_attempts)
                    continue
        trainer.wait_for_trial()


def _attempt_trial(trial: ActiveTrial, run: Run, trainer: Trainer, failed_attempts: Counter[int]) -> None:
    """Run a trial; if it fails for a reason that may not recur, leave it in the study to be resumed.

    Such a trial is not marked as failed: whether memory runs out depends on the machine and on what else it
    runs, and the values of later trials must not depend on that.

    Raises:
        UserError: this was the last of `MAX_ATTEMPTS` attempts.
    """
    try:
        run_trial(trial, run, trainer)
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
        "start the same command again to resume it, for example with a lower TUNE_WORKERS (on Ray: "
        "a higher RAY_TASK_MEMORY_GB) or on a machine with more memory, or exclude its values from tune.space"
    )


def run_trial(trial: ActiveTrial, parent: Run, trainer: Trainer) -> None:
    """Train one configuration and record the outcome, in MLflow first and in the study last.

    The MLflow run of the trial ends with the status FINISHED; KILLED if the trial was pruned; FAILED if the
    training diverged. A trial whose process was killed resumes from its checkpoint, in the same run. The
    outcome is written to the study last; until then, a restarted search resumes the trial. If the trial has
    to wait for an earlier one that is not running, for example after a crash, this function returns, so that
    the earlier one can run first.

    Args:
        trial: trial to run.
        parent: MLflow run of the search.
        trainer: where to train.

    Raises:
        MemoryError, RuntimeError: the training failed for a reason that may not recur. Torch raises
            RuntimeError when memory runs out.
    """
    search, name = trial.search, f"trial {trial.number}"
    stored = trial.load()
    params = apply_values(search.params, stored.params)
    key = compute_fingerprint(params.model, params.train, search.reviews)
    run = open_trial_run(parent, search, trial.number, str(key))
    with suppress(TrialSuspended), trainer.open(trial, params, key) as training:
        stopwatch = Stopwatch.resume(trial, stored, training.get_cpu_seconds)
        state, auc = TrialState.RUNNING, None
        with run:  # records a failed trial in MLflow before the study, since MLflow may fail as well
            try:
                origin = build_origin(params, search.reviews, search.name, trial.number)
                log_configuration(run, params, search.reviews, origin)
                result = training.fit(Reporter(trial, run, params, training, stopwatch))
                retain_model(search, trial.number, result)
                run.log_best(result.best)
                state, auc = TrialState.COMPLETE, result.best.validation_auc
            except optuna.TrialPruned:
                state = TrialState.PRUNED
                run.kill()
            except TrialSuspended:
                run.kill()
            except TrainingDivergedError as error:
                state = TrialState.FAIL
                run.fail(f"{type(error).__name__}: {error}")
                trial.set_user_attrs({ERROR: f"{type(error).__name__}: {error}"})
        stopwatch.record()
        if state == TrialState.RUNNING:
            logger.info(f"{name}: suspended, since it needs the reports of a trial that is not running")
            raise TrialSuspended  # any exception retains the checkpoint
        ended_trial = trial.record_outcome(state, auc)
        logger.info(f"{name}: {describe_outcome(ended_trial)}")
    delete_surplus_models(search)


def describe_outcome(trial: optuna.trial.FrozenTrial) -> str:
    """Return the outcome of a trial that has ended, as one line of text."""
    match trial.state:
        case TrialState.COMPLETE:
            return f"validation AUC {trial.value:.4f}"
        case TrialState.PRUNED:
            return "pruned"
        case _:
            return f"failed: {get_error(trial)}"
