"""Runs a search until all of its trials have ended."""

import logging

from sentiment.lineage import TRAINING_INPUTS, log_datasets
from sentiment.tracking import Run
from sentiment.tracking.provenance import log_provenance
from sentiment.tuning.executors.executor import Executor
from sentiment.tuning.study import LIMITS, Search
from sentiment.tuning.trial_records import delete_surplus_models

logger = logging.getLogger(__name__)

WORKERS_TAG, TRIALS_TAG, MAX_FAILED_TAG = "tune.workers", "tune.trials", "tune.max_failed"


def run_search(search: Search, run: Run, executor: Executor) -> None:
    """Run trials until `tune.trials` trials have ended.

    Trials that have ended do not run again. The results depend neither on the executor nor on whether the
    search was killed and resumed.

    Args:
        search: search to run or resume.
        run: MLflow run of the search.
        executor: where the trials train.

    Raises:
        UserError: too many trials failed, none finished, a trial could not be completed in `MAX_ATTEMPTS`
            attempts, or a worker met an error that the user can fix.
    """
    tune = search.params.tune
    log_provenance(run, "tune", TRAINING_INPUTS)
    # The limits may change while the study stays the same, but a run's parameters may not: log them as tags.
    run.log_params(search.params.model_dump(exclude={"tune": LIMITS}))
    log_datasets(run, search.params, search.reviews)
    limits = {TRIALS_TAG: str(tune.trials), MAX_FAILED_TAG: str(tune.max_failed)}
    run.tag({**limits, WORKERS_TAG: executor.description})
    ended_count = sum(trial.state.is_finished() for trial in search.load_trials())
    if ended_count:
        logger.info(f"{search.name}: {ended_count} of {search.trial_count} trials are done")
    executor.run(search, run)
    delete_surplus_models(search)  # a process may have been killed after a trial ended and before this call
