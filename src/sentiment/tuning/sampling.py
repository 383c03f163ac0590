"""Where trials come from, and when they are ended early."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.pruners._successive_halving import (
    _completed_rung_key,
    _get_competing_values,
    _get_current_rung,
    _is_trial_promotable_to_next_rung,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.params.search_space import (
    Combination,
    compute_max_evaluations,
    count_grid_trials,
    is_same_combination,
    iterate_grid,
)
from sentiment.params.tune import (
    GPSampling,
    GridSampling,
    HyperbandPruning,
    MedianPruning,
    NoPruning,
    RandomSampling,
    TPESampling,
    TuneParams,
    WarmStart,
)
from sentiment.tuning.trial_params import configured, fitting, ranked, starting_point

MakeSampler = Callable[[int], BaseSampler]
"""From a seed."""


class SeededByTrial(BaseSampler):
    """Makes a sampler anew for each draw, seeded by the trial's number and the parameter's name.

    So what a trial draws follows from the trials in the study alone: not from what the process drew before,
    nor from which of the trial's parameters had been drawn when it was killed.
    """

    def __init__(self, make: MakeSampler, seed: int) -> None:
        self._make = make
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Look at the study as it is now: a trial that is taken over does not come by way of `ask`."""
        study._thread_local.cached_all_trials = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn together."""
        return dict(self._sampler(trial).infer_relative_search_space(study, trial))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the parameters of `search_space` together."""
        self._forget_last_draw(study, trial)
        return dict(self._sampler(trial).sample_relative(study, trial, search_space))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself."""
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        words = [self._seed, trial.number, zlib.crc32(name.encode())]
        return self._make(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def _forget_last_draw(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Void what the samplers note for other workers about a draw that the trial was killed after.

        GPSampler takes the note for one more trial that is running, and keeps away from the very point.
        """
        for key in trial.system_attrs:
            if ":relative_params:" in key:
                study._storage.set_trial_system_attr(trial._trial_id, key, "")


class RepeatingHyperband(HyperbandPruner):
    """Gives a trial that was killed between the verdict and its end the same verdict again.

    Optuna notes that a trial came to a rung before it knows whether it passes; asked again, it takes the note
    for a pass.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to end the trial at its last step."""
        rung = _get_current_rung(trial) - 1
        if super().prune(study, trial):
            return True
        step, key = trial.last_step, _completed_rung_key(rung)
        if step is None or rung < 0 or trial.intermediate_values[step] != trial.system_attrs[key]:
            return False
        value = trial.system_attrs[key]
        bracket = self._create_bracket_study(study, self._get_bracket_id(study, trial))
        others = [other for other in bracket.get_trials(deepcopy=False) if other.number != trial.number]
        competing = _get_competing_values(others, value, key)
        passes = _is_trial_promotable_to_next_rung(value, competing, self._reduction_factor, study.direction)
        return not passes


def make_sampler(tune: TuneParams) -> SeededByTrial:
    """Return the sampler that params.yaml asks for.

    A grid needs none: its trials wait in the study from the beginning (`starting_trials`).
    """
    return SeededByTrial(_maker(tune), tune.seed)


def _maker(tune: TuneParams) -> MakeSampler:
    match tune.sampler:
        case TPESampling(startup_trials=startup):
            return lambda seed: TPESampler(seed=seed, n_startup_trials=startup)
        case GPSampling(startup_trials=startup):
            # Conditional parameters are drawn at random, for which the sampler would warn each time.
            return lambda seed: GPSampler(
                seed=seed, n_startup_trials=startup, warn_independent_sampling=False
            )
        case RandomSampling() | GridSampling():
            return lambda seed: RandomSampler(seed=seed)


def make_pruner(params: Params) -> BasePruner:
    """Return the pruner that params.yaml asks for; it counts steps in checks, from 1."""
    checks = compute_max_evaluations(params)
    match params.tune.pruner:
        case NoPruning():
            return NopPruner()
        case MedianPruning(startup_trials=startup, warmup=warmup):
            first = math.ceil(round(warmup * checks, 6))  # 0.1 of 30 is 3.0000000000000004
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=first)
        case HyperbandPruning(reduction_factor=factor, min_resource=least):
            return RepeatingHyperband(min_resource=least, max_resource=checks, reduction_factor=factor)


def trials_in_all(params: Params) -> int:
    """Return how many trials the search ends with: `tune.trials`, or fewer where a grid has no more."""
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return tune.trials
    return min(tune.trials, count_grid_trials(params))


def starting_trials(params: Params, storage: BaseStorage) -> list[Combination]:
    """Return the values of the trials that come before any is drawn; there may be more than `tune.trials`.

    The first is the configuration of params.yaml; after it come the points of a grid, or the best trials of
    an older study in the storage. Values that an older trial does not have are left to the sampler.
    Raises UserError where the older study is not there or has no trial for this space, or where values of the
    grid do not go together.
    """
    tune = params.tune
    trials = _with_grid(params)
    if tune.warm_start is not None:
        trials += _older_trials(params, tune.warm_start, storage)
    return trials


def _with_grid(params: Params) -> list[Combination]:
    """Return trial 0 and, where there is a grid, its other points, each one checked."""
    start = starting_point(params)
    if not isinstance(params.tune.sampler, GridSampling):
        return [start]
    points = list(iterate_grid(params))
    for values in points:
        configured(params, values)
    return [start, *(values for values in points if not is_same_combination(values, start))]


def _older_trials(params: Params, warm_start: WarmStart, storage: BaseStorage) -> list[Combination]:
    """Return what the best trials of an older study have in common with the space, each set once."""
    where = f"tune.warm_start.study: {warm_start.study}"
    try:
        study = optuna.load_study(study_name=warm_start.study, storage=storage)
    except KeyError:
        names = sorted(optuna.get_all_study_names(storage))
        there = f"it has {', '.join(names)}" if names else "it has none"
        raise UserError(f"{where}: no such study in the storage; {there}") from None
    found: list[Combination] = [starting_point(params)]
    for trial in ranked(study.trials):
        values = fitting(params, trial.params)
        if values and not any(is_same_combination(values, other) for other in found):
            found.append(values)
    if len(found) == 1:
        raise UserError(f"{where}: none of its trials finished with values for tune.space that are new")
    return found[1 : 1 + warm_start.trials]
