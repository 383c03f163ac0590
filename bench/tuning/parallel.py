"""What parallel trials and pruning cost a search, simulated on a surrogate of its trials.

With `tune.max_parallel: k` a trial is drawn without the results of the k - 1 trials before it. The simulated
searches have the sampler and the pruner of params.yaml and the seeds 0, 1, ... They are compared seed by
seed: in searches with the same seed, equal hyperparameters have equal curves. With k = 30, all 30 trials are
drawn at random, which shows what the sampler gains at all. Searches without chance, in which every training
has the mean curve of its configuration, show differences that chance hides otherwise.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import optuna
from scipy.stats import ttest_1samp

from bench.bars import Bar
from bench.tuning import pruning
from bench.tuning.pruning import SAVED_BAR, WORSE_BAR, ReplayedSearch, replay_search
from bench.tuning.record import load_recorded_params
from bench.tuning.surrogate import Surrogate
from sentiment.logs import progress
from sentiment.params import Params
from sentiment.params.search_space import Values, get_value
from sentiment.tuning.trial_params import rank_trials

logger = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

TRIALS = 30
SEEDS = 30
PARALLEL = (1, 2, 4, 8, TRIALS)
DIFFERENCE_BAR = 0.002
"""Largest difference between k = 4 and k = 1 that the confidence interval may contain."""
WITH_BARS = (2, 4)
"""Values of k whose pruning has bars, in searches of `tune.trials` trials."""
NO_PRUNING = {"kind": "none"}
MEAN = "its configuration's mean:"


@dataclass(frozen=True)
class SimulatedSearch:
    """A search on the surrogate.

    Attributes:
        replayed: its trials, with and without pruning.
        means: mean validation AUC of each trial's configuration, over the seeds of the training.
    """

    replayed: ReplayedSearch
    means: tuple[float, ...]

    @property
    def mean_of_best(self) -> float:
        """Mean validation AUC of the configuration of the best trial, whose own AUC is partly luck."""
        return self.means[rank_trials(self.replayed.trials)[0].number]

    @property
    def mean_of_best_without_pruning(self) -> float:
        """The same for the trial that would be the best one if none was pruned."""
        trained = self.replayed.trained
        return self.means[max(range(len(trained)), key=lambda number: trained[number].auc)]

    def take(self, trials: int) -> Self:
        """Return the search as it was after some trials; later ones do not affect it."""
        replayed = ReplayedSearch(self.replayed.trained[:trials], self.replayed.trials[:trials])
        return replace(self, replayed=replayed, means=self.means[:trials])


Searches = Mapping[int, Sequence[SimulatedSearch]]
"""Searches by `tune.max_parallel`, one for each seed."""


@dataclass(frozen=True)
class Mean:
    """Mean over the seeds, with the 95% confidence interval of Student's t distribution."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Compute the mean; the interval of equal values has no width."""
        if np.ptp(values) == 0:
            return cls(values[0], values[0], values[0])
        interval = ttest_1samp(values, 0).confidence_interval(0.95)
        return cls(float(np.mean(values)), float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def parallel_bars() -> list[Bar]:
    """Simulate searches; compare each k with k = 1, and each search with its own trials without pruning."""
    params = load_recorded_params()
    surrogate = Surrogate.load(params)
    logger.info(f"surrogate: {surrogate.fidelity}")
    searches = simulate_all(change_tune(params, trials=TRIALS), surrogate, PARALLEL)
    undisturbed = simulate_all(
        change_tune(params, trials=TRIALS, pruner=NO_PRUNING), Surrogate.load(params, chance=0), PARALLEL
    )
    bars = [_compare_parallel(k, searches, is_bar=k == 4) for k in PARALLEL[1:]]
    bars += [_compare_parallel(k, undisturbed, " without chance and pruning") for k in PARALLEL[1:]]
    for trials, k in itertools.product((params.tune.trials, TRIALS), PARALLEL[:-1]):
        shortened = [search.take(trials) for search in searches[k]]
        bars += _summarize_pruning(k, shortened, has_bars=k in WITH_BARS and trials == params.tune.trials)
    return bars


def simulate_all(params: Params, surrogate: Surrogate, parallel: Sequence[int]) -> Searches:
    """Simulate one search for each k and seed."""
    with _without_trial_logs():
        return {
            k: [
                simulate(change_tune(params, max_parallel=k, seed=seed), surrogate)
                for seed in progress(range(SEEDS), SEEDS, f"searches with max_parallel {k}")
            ]
            for k in parallel
        }


def simulate(params: Params, surrogate: Surrogate) -> SimulatedSearch:
    """Run the search of `params` on the surrogate; its seed is also that of the trainings."""
    replayed = replay_search(params, lambda drawn: surrogate.train(_get_values(drawn), params.tune.seed))
    means = tuple(surrogate.predict(trial.params).auc for trial in replayed.trials)
    return SimulatedSearch(replayed, means)


def change_tune(params: Params, **changes: Any) -> Params:
    """Return a copy of the parameters with other settings of the search."""
    content = params.model_dump()
    content["tune"].update(changes)
    return Params.model_validate(content)


@contextmanager
def _without_trial_logs() -> Iterator[None]:
    """Hide what `replay_search` logs of each trial: there are thousands."""
    level = pruning.logger.level
    pruning.logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        pruning.logger.setLevel(level)


def _get_values(params: Params) -> Values:
    return {name: get_value(params, name) for name in params.tune.space}


def _compare_parallel(k: int, searches: Searches, where: str = "", is_bar: bool = False) -> Bar:
    pairs = list(zip(searches[k], searches[1], strict=True))
    best = Mean.of([one.replayed.best - other.replayed.best for one, other in pairs])
    of_mean = Mean.of([one.mean_of_best - other.mean_of_best for one, other in pairs])
    return Bar(
        f"max_parallel {k}, {TRIALS} trials{where}: best AUC, less that with 1",
        f"{best}; {MEAN} {of_mean}",
        f"within ±{DIFFERENCE_BAR}" if is_bar else "",
        best.low >= -DIFFERENCE_BAR and best.high <= DIFFERENCE_BAR if is_bar else None,
    )


def _summarize_pruning(k: int, searches: Sequence[SimulatedSearch], has_bars: bool) -> list[Bar]:
    """Compare each search with its own trials without pruning, as does `bench.tuning.pruning`."""
    saved = float(np.mean([search.replayed.saved for search in searches]))
    lost = Mean.of([search.replayed.best_without_pruning - search.replayed.best for search in searches])
    of_mean = Mean.of([search.mean_of_best_without_pruning - search.mean_of_best for search in searches])
    where = f"max_parallel {k}, {len(searches[0].means)} trials"
    return [
        Bar(
            f"{where}: share of training steps saved by pruning",
            f"{saved:.2f}",
            f"≥ {SAVED_BAR}" if has_bars else "",
            saved >= SAVED_BAR if has_bars else None,
        ),
        Bar(
            f"{where}: best AUC lost by it",
            f"{lost}; {MEAN} {of_mean}",
            f"≤ {WORSE_BAR}" if has_bars else "",
            lost.value <= WORSE_BAR if has_bars else None,
        ),
    ]
