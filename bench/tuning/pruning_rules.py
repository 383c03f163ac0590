"""Other pruning rules, replayed on trials that were not pruned: `python -m bench.tuning.pruning_rules`.

Each rule prunes a trial whose best intermediate AUC is below a quantile of the reports that the trials before
it made at the same evaluation. The trials are those of searches on the surrogate, and the recorded ones in
random orders behind trial 0, to which neither surrogate nor sampler contribute.
"""

import itertools
import math
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.tuning.parallel import NO_PRUNING, TRIALS, change_tune, simulate_all
from bench.tuning.pruning import SAVED_BAR, WORSE_BAR, Trained
from bench.tuning.record import RECORDED_TRIALS, SEED, load_recorded_params
from bench.tuning.surrogate import Surrogate
from sentiment.errors import exits_cleanly

PARALLEL = (2, 4)
LENGTHS = (6, 8, 10, 12, TRIALS)
ORDERS = 200
"""Random orders of the recorded trials."""
QUANTILES = (0.25, 0.33, 0.5, 0.67)
WARMUPS = (0.0, 0.15, 0.3, 0.4)
STARTUPS = (1, 2, 3)


@dataclass(frozen=True)
class Rule:
    """When a trial is pruned.

    Attributes:
        quantile: quantile of the earlier reports below which a trial is pruned; 0.5 is the median.
        warmup: share of its intermediate evaluations during which a trial is not pruned.
        startup_trials: earlier trials that must have reached an evaluation before a trial is pruned at it.
    """

    quantile: float
    warmup: float
    startup_trials: int


@dataclass(frozen=True)
class Replayed:
    """Share of the optimizer steps that a rule saves, and by how much it lowers the best validation AUC."""

    saved: float
    lost: float


@exits_cleanly
def main() -> None:
    """Print a table: for each number of trials and rule, what it saves and loses."""
    print("| trials of | number | quantile | warmup | startup trials | saved | AUC lost | within both bars |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    sources = _list_searches()
    rules = [Rule(*values) for values in itertools.product(QUANTILES, WARMUPS, STARTUPS)]
    for source, length, rule in itertools.product(sources, LENGTHS, rules):
        replayed = [replay(trained[:length], rule) for trained in sources[source]]
        saved, lost = np.mean([(each.saved, each.lost) for each in replayed], axis=0)
        within = np.mean([each.saved >= SAVED_BAR and each.lost <= WORSE_BAR for each in replayed])
        settings = f"{rule.quantile} | {rule.warmup} | {rule.startup_trials}"
        print(f"| {source} | {length} | {settings} | {saved:.2f} | {lost:.4f} | {within:.0%} |")


def replay(trained: Sequence[Trained], rule: Rule) -> Replayed:
    """Prune trials that were trained to their end."""
    evaluations = len(trained[0].evaluations)
    reports: list[list[float]] = [[] for _ in range(evaluations)]
    taken, finished = 0, []
    for each in trained:
        aucs = [evaluation.intermediate_auc for evaluation in each.evaluations]
        reached = _count_evaluations(aucs, reports, rule)
        for earlier, auc in zip(reports, aucs[:reached], strict=False):
            insort(earlier, auc)
        taken += reached
        if reached == evaluations:
            finished.append(each.auc)
    best = max(each.auc for each in trained)
    return Replayed(1 - taken / (evaluations * len(trained)), best - max(finished))


def _list_searches() -> Mapping[str, Sequence[Sequence[Trained]]]:
    """Return searches without pruning, by the source of their trials."""
    params = change_tune(load_recorded_params(), trials=TRIALS, pruner=NO_PRUNING)
    surrogate = Surrogate.load(params)
    sources: dict[str, Sequence[Sequence[Trained]]] = {
        f"max_parallel {k}": [search.replayed.trained for search in searches]
        for k, searches in simulate_all(params, surrogate, PARALLEL).items()
    }
    recorded = pd.read_csv(RECORDED_TRIALS)
    first, *others = surrogate.read(recorded[recorded[SEED] == params.train.seed])
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(others)) for _ in range(ORDERS)]
    sources["recorded"] = [[first, *(others[index] for index in order)] for order in orders]
    return sources


def _count_evaluations(aucs: Sequence[float], reports: Sequence[Sequence[float]], rule: Rule) -> int:
    """Return the number of evaluations that a trial makes until it ends or is pruned."""
    best, first = 0.0, math.ceil(round(rule.warmup * len(reports), 6))
    for evaluation, (auc, earlier) in enumerate(zip(aucs, reports, strict=True), 1):
        best = max(best, auc)
        is_due = first <= evaluation < len(reports) and len(earlier) >= max(1, rule.startup_trials)
        if is_due and best < _compute_quantile(earlier, rule.quantile):
            return evaluation
    return len(reports)


def _compute_quantile(ordered: Sequence[float], quantile: float) -> float:
    """Interpolate linearly, as `numpy.quantile` does, but many times as fast for a few values."""
    position = quantile * (len(ordered) - 1)
    index = int(position)
    upper = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (position - index) * (upper - ordered[index])


if __name__ == "__main__":
    main()
