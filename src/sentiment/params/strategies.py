"""What the parameters of the search must be to each other."""

from sentiment.params.grid import grid_size, grid_trials
from sentiment.params.root import Params
from sentiment.params.tune import Choices, GridSampling, HyperbandPruning


def most_checks(params: Params) -> int:
    """Return the checks of the longest training that the search may draw."""
    epochs = [params.train.epochs]
    dimension = params.tune.space.get("train.epochs")
    if isinstance(dimension, Choices):
        epochs += [int(choice) for choice in dimension.choices]
    elif dimension is not None:
        epochs.append(int(dimension.high))
    return max(epochs) * params.tune.checks_per_epoch


def strategy_faults(params: Params) -> list[str]:
    """Say what is wrong with sampler and pruner; the search space must be without fault."""
    return _grid_faults(params) + _pruner_faults(params)


def _grid_faults(params: Params) -> list[str]:
    tune = params.tune
    if not isinstance(tune.sampler, GridSampling):
        return []
    ranges = {name: dimension for name, dimension in tune.space.items() if not isinstance(dimension, Choices)}
    if tune.warm_start is not None:
        return ["tune.warm_start: null with tune.sampler.kind: grid, which tries every combination anyway"]
    without = [
        f"tune.space.{name}.points: required by tune.sampler.kind: grid, but not there"
        for name, dimension in ranges.items()
        if dimension.points is None
    ]
    if without:
        return without
    size, needed = grid_size(params), grid_trials(params)
    if needed <= tune.trials:
        return []
    return [
        f"tune.trials: the grid has {size:,} points, which with trial 0 make {needed:,} trials: "
        f"allow so many, or make the grid smaller (found {tune.trials:,})"
    ]


def _pruner_faults(params: Params) -> list[str]:
    pruner, checks = params.tune.pruner, most_checks(params)
    if not isinstance(pruner, HyperbandPruning) or pruner.min_resource <= checks:
        return []
    return [
        f"tune.pruner.min_resource: at most {checks}, the checks of a training "
        f"(train.epochs times tune.checks_per_epoch) (found {pruner.min_resource})"
    ]
