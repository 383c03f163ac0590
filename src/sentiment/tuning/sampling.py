"""How the hyperparameters of a trial are chosen."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.params.search_space import (
    Combination,
    count_grid_trials,
    is_same_combination,
    iterate_grid,
)
from sentiment.params.tune import (
    GPSampling,
    GridSampling,
    RandomSampling,
    TPESampling,
    TuneParams,
    WarmStart,
)
from sentiment.tuning.trial_params import (
    apply_values,
    get_starting_values,
    rank_trials,
    select_valid_values,
    suggest_params,
)


def draw_trial(
    params: Params, earlier: Sequence[FrozenTrial], starting_values: Sequence[Combination]
) -> FrozenTrial:
    """Draw the hyperparameters of the next trial of a search, whose number is the count of earlier trials.

    Trial n is drawn from the results of trials 0 to n - `tune.max_parallel`. Later ones count as running,
    even if they have ended, and their parameters as a poor choice ("constant liar"; Ginsbourger et al.,
    2010). The values therefore depend neither on the number of workers nor on their speed.

    Args:
        params: all parameters of params.yaml.
        earlier: all trials of the search so far, sorted by number.
        starting_values: values of the first trials, which are not sampled (`list_starting_values`).

    Returns:
        A running trial with its parameters, to be added to the study.

    Raises:
        ValueError: a trial whose result is needed has not ended.
        UserError: the drawn values are an invalid combination.
    """
    number = len(earlier)
    known = count_known_results(number, params.tune.max_parallel)
    if not all(trial.state.is_finished() for trial in earlier[:known]):
        raise ValueError(f"trial {number} needs the results of the first {known} trials")
    sampler = _build_sampler(params.tune, number)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=NopPruner())
    study.add_trials([*earlier[:known], *map(_as_started, earlier[known:])])
    if number < len(starting_values):
        study.enqueue_trial(starting_values[number])
    drawn = study.ask()
    suggest_params(drawn, params)
    return create_trial(
        state=TrialState.RUNNING, params=drawn.params, distributions=dict(drawn.distributions)
    )


def count_known_results(number: int, max_parallel: int) -> int:
    """Return how many trials must have ended before trial `number` can be drawn: the first ones."""
    return max(0, number - max_parallel + 1)


def _as_started(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as it was when it started: running, with parameters, without intermediate values."""
    return create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=dict(trial.distributions)
    )


def _build_sampler(tune: TuneParams, number: int) -> BaseSampler:
    """Build the sampler that params.yaml configures, for trial `number` alone, seeded by its number.

    A grid needs no sampler: its points are starting values.
    """
    seed = int(np.random.SeedSequence([tune.seed, number]).generate_state(1)[0])
    match tune.sampler:
        case TPESampling(startup_trials=startup):
            return TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        case GPSampling(startup_trials=startup):
            # Conditional parameters are drawn at random; the sampler would warn of each such draw.
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case RandomSampling() | GridSampling():
            return RandomSampler(seed=seed)


def count_trials(params: Params) -> int:
    """Return the number of trials of the search: `tune.trials`, or fewer if a grid has fewer points."""
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return tune.trials
    return min(tune.trials, count_grid_trials(params))


def list_starting_values(params: Params, storage: BaseStorage) -> list[Combination]:
    """Return the parameter values of the first trials of a study, which are not sampled.

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
