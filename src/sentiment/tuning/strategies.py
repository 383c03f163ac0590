"""How a search draws trials and which it ends early, by params.yaml."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from sentiment.params import Params
from sentiment.params.tune import TuneParams
from sentiment.tuning.space import Value, starting_point


class SeededByTrial(BaseSampler):
    """A sampler whose draws depend on the study's content alone, not on what the process drew before.

    Each draw has a seed of its own, from the search's seed, the trial's number and, of a parameter drawn by
    itself, its name. So a search that was killed, even between two parameters of one trial, goes on as if it
    had not been.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        """Take a function from a seed to the sampler that draws, and the search's seed."""
        self._make = make
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the sampler which parameters are drawn together."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw several parameters together."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself."""
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, trial: FrozenTrial, parameter: str = "") -> BaseSampler:
        words = [self._seed, trial.number, zlib.crc32(parameter.encode())]
        return self._make(int(np.random.SeedSequence(words).generate_state(1)[0]))


def make_sampler(tune: TuneParams) -> BaseSampler:
    """Return the sampler that params.yaml asks for."""
    return SeededByTrial(
        lambda seed: TPESampler(seed=seed, n_startup_trials=tune.startup_trials), seed=tune.seed
    )


def make_pruner(tune: TuneParams) -> BasePruner:
    """Return what ends trials early."""
    return MedianPruner(n_startup_trials=tune.startup_trials, n_warmup_steps=tune.warmup_epochs)


def starting_trials(params: Params) -> list[dict[str, Value]]:
    """Return the values of the trials that come before any is drawn: trial 0 alone."""
    return [starting_point(params)]
