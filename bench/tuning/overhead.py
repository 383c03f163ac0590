"""What a search takes besides training."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.bars import Bar
from bench.processes import in_fresh_process
from bench.training.phases import timed_calls
from bench.tuning.project import PLACES, SearchProject
from sentiment.params import load_params
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import open_store
from sentiment.training.epoch_metrics import EpochMetrics, IntermediateEvaluator
from sentiment.training.self_training import fit_with_self_training
from sentiment.tuning import trial_training
from sentiment.tuning.executors.selection import open_executor
from sentiment.tuning.run_search import run_search
from sentiment.tuning.study import open_search
from sentiment.tuning.trial_records import open_search_run

TRIALS = 3
BAR = 0.03
CHANGES = {"tune.trials": TRIALS, "tune.sampler": {"kind": "random"}, "tune.pruner": {"kind": "none"}}


def overhead_bar(reviews: int | None) -> Bar:
    """Run a search by one worker; hold its share of time outside training against the bar."""
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
        project = SearchProject.made(Path(folder), reviews, CHANGES)
        search, training = in_fresh_process(_seconds, project.root)
    share = 1 - training / search
    value = f"{share:.1%} ({search - training:.1f} of {search:.1f} s)"
    return Bar("share of a search outside training", value, f"≤ {BAR:.0%}", share <= BAR)


def _seconds(root: Path) -> tuple[float, float]:
    """Return what the trials took, from the first draw to the last log, and what of it was training.

    Looking at the validation AUC within an epoch is none: only a search does so.
    """
    for name in [name for name in os.environ if name.startswith(PLACES)]:
        del os.environ[name]
    os.environ["TUNE_WORKERS"] = "1"
    os.chdir(root)
    training = 0.0

    def timed(
        model: Any, train: Any, reviews: Any, on_epoch: Callable[[EpochMetrics], None], *rest: Any
    ) -> Any:
        nonlocal training

        def on_epoch_timed(epoch: EpochMetrics) -> None:
            nonlocal training
            start = time.perf_counter()
            try:
                on_epoch(epoch)
            finally:
                training -= time.perf_counter() - start

        start = time.perf_counter()
        try:
            return fit_with_self_training(model, train, reviews, on_epoch_timed, *rest)
        finally:
            training += time.perf_counter() - start

    params = load_params()
    search = open_search(params, TrainingData.open())
    with (
        patch.object(trial_training, "fit_with_self_training", timed),
        timed_calls(IntermediateEvaluator, "evaluate_if_due") as looking,
        timed_calls(IntermediateEvaluator, "evaluate_epoch_end") as ending,
        open_executor(params) as executor,
        open_search_run(open_store(), search) as run,
    ):
        start = time.perf_counter()
        run_search(search, run, executor)
        return time.perf_counter() - start, training - sum(looking) - sum(ending)
