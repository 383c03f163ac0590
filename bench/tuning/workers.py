"""The same trials by one worker and by two."""

import logging
import tempfile
from pathlib import Path

from bench.bars import Bar, at_least
from bench.processes import seconds_of
from bench.tuning.project import SearchProject

logger = logging.getLogger(__name__)


TRIALS = 8
BAR = 1.6
CHANGES = {
    "tune.trials": TRIALS,
    "tune.sampler": {"kind": "random"},  # and none pruned: the same trials, whatever order they end in
    "tune.pruner": {"kind": "none"},
    "train.epochs": 2,
}


def compare_workers(reviews: int | None) -> Bar:
    """Run one search by one worker, then by two; hold the ratio of their seconds against the bar.

    Both are whole stages, their start included. Raises RuntimeError if the trials differ.
    """
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder:
        one = SearchProject.made(Path(folder) / "one", reviews, CHANGES)
        two = one.copy(Path(folder) / "two")
        seconds = {}
        for workers, project in ((1, one), (2, two)):
            seconds[workers] = seconds_of(project.finish, workers)
            logger.info(f"{TRIALS} trials, workers: {workers}, {seconds[workers]:.0f} s")
        if [trial.params for trial in one.study().trials] != [trial.params for trial in two.study().trials]:
            raise RuntimeError("the two searches drew other trials")
    return at_least("two workers, times faster than one", [seconds[1] / seconds[2]], BAR)
