"""A search from its start, or from where it was stopped, to its last trial."""

from sentiment.lineage import DATA_OF_TRAINING
from sentiment.progress import say
from sentiment.settings import load_settings
from sentiment.tracking import Run
from sentiment.tracking.story import log_parameters, log_story
from sentiment.tuning.kept import keep_best_only
from sentiment.tuning.study import TOTALS, Search
from sentiment.tuning.workers import run_workers, work

WORKERS_TAG, TRIALS_TAG, MAX_FAILED_TAG = "tune.workers", "tune.trials", "tune.max_failed"


def run_search(search: Search, run: Run) -> None:
    """Run trials until there are `tune.trials`, in `TUNE_WORKERS` processes.

    What is done already is not done again. With one worker, the trials are the same whether the search was
    ever stopped or not; with several, what a trial draws depends on which others had ended by then.
    Raises UserError where too many trials failed, none finished, or a worker met what only the user can mend.
    """
    tune, workers = search.params.tune, load_settings().tune_workers
    log_story(run, DATA_OF_TRAINING)
    # The totals may change while the study stays, and a run's parameters may not: those are tags.
    log_parameters(run, search.params.model_dump(exclude={"tune": TOTALS}))
    run.tag({TRIALS_TAG: str(tune.trials), MAX_FAILED_TAG: str(tune.max_failed), WORKERS_TAG: str(workers)})
    done = sum(trial.state.is_finished() for trial in search.trials())
    if done:
        say(f"{search.name}: {done} of {search.total} trials are done")
    if workers == 1:
        work(search, run)
    elif not search.is_over():
        say(f"{workers} workers: which values a trial draws depends on the order in which others end")
        run_workers(search, run, workers)
    keep_best_only(search)  # a kill may have come between a trial's end and this
