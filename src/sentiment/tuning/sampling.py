"""Samplers and pruners of a search, and the trials that it starts with."""

import binascii
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
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
from sentiment.tuning.trial_params import apply_values, get_starting_values, rank_trials, select_valid_values

SamplerFactory = Callable[[int], BaseSampler]
"""Function that builds a sampler from a seed."""


class TrialSeededSampler(BaseSampler):
    """Sampler that delegates each draw to a new sampler, seeded by trial number and parameter name.

    The values that a trial draws therefore depend only on the trials in the study. They depend neither on
    earlier draws of the process, nor on which parameters the trial had drawn when a process was killed.

    Args:
        build_sampler: builds the sampler for one draw from its seed.
        seed: seed of the search.
    """

    def __init__(self, build_sampler: SamplerFactory, seed: int) -> None:
        self._build_sampler = build_sampler
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Discard the cached trials, as does `Study.ask`, which is not called for a trial that resumes."""
        study._thread_local.cached_all_trials = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn jointly."""
        return dict(self._build_seeded_sampler(trial).infer_relative_search_space(study, trial))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the parameters of `search_space` jointly."""
        self._clear_recorded_draw(study, trial)
        return dict(self._build_seeded_sampler(trial).sample_relative(study, trial, search_space))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter independently of the others."""
        sampler = self._build_seeded_sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _build_seeded_sampler(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        """Build the sampler for one draw of a trial; `name` is the parameter, empty for a joint draw."""
        entropy = [self._seed, trial.number, zlib.crc32(name.encode())]
        return self._build_sampler(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _clear_recorded_draw(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Clear the joint draw that GPSampler recorded for this trial before its process was killed.

        GPSampler would treat the record as another running trial and avoid the point that it drew.
        """
        for key in trial.system_attrs:
            if ":relative_params:" in key:
                study._storage.set_trial_system_attr(trial._trial_id, key, "")


class CrashSafeHyperbandPruner(BasePruner):
    """Hyperband (Li et al., 2018) with asynchronous successive halving, crash-safe.

    It makes the same decisions as `optuna.pruners.HyperbandPruner`, but derives them only from the reported
    intermediate values. Optuna's pruner records that a trial reached a rung before it decides on promotion.
    If the process is killed in between, the resumed trial is promoted without a decision.

    Args:
        min_resource: number of evaluations of every trial before it may be pruned.
        max_resource: number of evaluations of the longest training.
        reduction_factor: the best 1/reduction_factor of the trials at a rung are promoted to the next rung,
            which comes after reduction_factor times as many evaluations.
    """

    def __init__(self, min_resource: int, max_resource: int, reduction_factor: int) -> None:
        self._min_resource = min_resource
        self._reduction_factor = reduction_factor
        bracket_count = math.floor(math.log(max_resource / min_resource, reduction_factor)) + 1
        self._bracket_sizes = [
            math.ceil(
                bracket_count * reduction_factor ** (bracket_count - 1 - bracket) / (bracket_count - bracket)
            )
            for bracket in range(bracket_count)
        ]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial at its last evaluation; True only at a rung of its bracket."""
        bracket = self._compute_bracket(study, trial)
        step = trial.last_step
        if step is None or not self._is_rung(bracket, step):
            return False
        value = trial.intermediate_values[step]
        if math.isnan(value):
            return True
        competing_values = [
            other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            and not math.isnan(other.intermediate_values.get(step, math.nan))
            and self._compute_bracket(study, other) == bracket
        ]
        ranking = sorted([*competing_values, value], reverse=True)
        promoted_count = max(1, len(ranking) // self._reduction_factor)
        return value < ranking[promoted_count - 1]

    def _is_rung(self, bracket: int, step: int) -> bool:
        """Return whether a bracket decides on promotion after the evaluation with index `step`."""
        rung: int = self._min_resource * self._reduction_factor**bracket
        while rung < step:
            rung *= self._reduction_factor
        return rung == step

    def _compute_bracket(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Compute the bracket of a trial from a hash of study name and trial number, as Optuna does."""
        position = binascii.crc32(f"{study.study_name}_{trial.number}".encode()) % sum(self._bracket_sizes)
        for bracket, size in enumerate(self._bracket_sizes):
            position -= size
            if position < 0:
                return bracket
        raise AssertionError("the position is below the sum of all sizes")


def build_sampler(tune: TuneParams) -> TrialSeededSampler:
    """Build the sampler that params.yaml configures.

    A grid needs no sampler: its trials are enqueued when the study is created (`list_starting_trials`).
    """
    return TrialSeededSampler(_select_sampler_factory(tune), tune.seed)


def _select_sampler_factory(tune: TuneParams) -> SamplerFactory:
    match tune.sampler:
        case TPESampling(startup_trials=startup):
            return lambda seed: TPESampler(seed=seed, n_startup_trials=startup)
        case GPSampling(startup_trials=startup):
            # Conditional parameters are drawn at random; the sampler would warn of each such draw.
            return lambda seed: GPSampler(
                seed=seed, n_startup_trials=startup, warn_independent_sampling=False
            )
        case RandomSampling() | GridSampling():
            return lambda seed: RandomSampler(seed=seed)


def build_pruner(params: Params) -> BasePruner:
    """Build the pruner that params.yaml configures; its steps are evaluation indices, starting at 1."""
    evaluations = compute_max_evaluations(params)
    match params.tune.pruner:
        case NoPruning():
            return NopPruner()
        case MedianPruning(startup_trials=startup, warmup=warmup):
            warmup_steps = math.ceil(round(warmup * evaluations, 6))  # 0.1 * 30 is 3.0000000000000004
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup_steps)
        case HyperbandPruning(reduction_factor=reduction_factor, min_resource=min_resource):
            return CrashSafeHyperbandPruner(min_resource, evaluations, reduction_factor)


def count_trials(params: Params) -> int:
    """Return the number of trials of the search: `tune.trials`, or fewer if a grid has fewer points."""
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return tune.trials
    return min(tune.trials, count_grid_trials(params))


def list_starting_trials(params: Params, storage: BaseStorage) -> list[Combination]:
    """Return the parameter values of the trials that are enqueued when a study is created.

    The first trial has the values of params.yaml. The points of a grid, or the best trials of an earlier
    study, follow. The sampler draws parameters that a trial of the earlier study does not have. The list may
    be longer than `tune.trials`.

    Raises:
        UserError: the earlier study does not exist or has no trial within the search space, or the grid
            contains an invalid combination of values.
    """
    tune = params.tune
    trials = _list_grid_trials(params)
    if tune.warm_start is not None:
        trials += _list_warm_start_trials(params, tune.warm_start, storage)
    return trials


def _list_grid_trials(params: Params) -> list[Combination]:
    """Return the values of trial 0 and, with grid sampling, the validated other points of the grid."""
    start = get_starting_values(params)
    if not isinstance(params.tune.sampler, GridSampling):
        return [start]
    points = list(iterate_grid(params))
    for values in points:
        apply_values(params, values)  # raises UserError for an invalid combination
    return [start, *(values for values in points if not is_same_combination(values, start))]


def _list_warm_start_trials(params: Params, warm_start: WarmStart, storage: BaseStorage) -> list[Combination]:
    """Return the distinct values of the best trials of an earlier study that are within the search space."""
    message_prefix = f"tune.warm_start.study: {warm_start.study}"
    try:
        study = optuna.load_study(study_name=warm_start.study, storage=storage)
    except KeyError:
        names = sorted(optuna.get_all_study_names(storage))
        existing = f"it has {', '.join(names)}" if names else "it has none"
        raise UserError(f"{message_prefix}: no such study in the storage; {existing}") from None
    combinations: list[Combination] = [get_starting_values(params)]
    for trial in rank_trials(study.trials):
        values = select_valid_values(params, trial.params)
        if values and not any(is_same_combination(values, other) for other in combinations):
            combinations.append(values)
    if len(combinations) == 1:
        raise UserError(
            f"{message_prefix}: none of its trials finished with values for tune.space that are new"
        )
    return combinations[1 : 1 + warm_start.trials]
