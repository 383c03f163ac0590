"""When a trial is pruned: a rule that does not depend on the speed or the number of workers."""

import binascii
import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from sentiment.params import Params
from sentiment.params.search_space import compute_max_evaluations
from sentiment.params.tune import HyperbandPruning, MedianPruning, NoPruning

LOWEST_AUC, HIGHEST_AUC = 0.0, 1.0

STUDY_NAME = "search"
"""Name of the studies that are built for a comparison. Hyperband derives the bracket of a trial from it, so
it is constant: the name of the search's own study changes with the code."""

ABSENT = None
"""Stands for the report of a trial that ended before the evaluation in question."""


def decide_pruning(pruner: BasePruner, trials: Sequence[FrozenTrial], number: int) -> bool | None:
    """Decide whether to prune a trial after its last report, in comparison with the trials before it.

    A trial is compared with the reports that all trials of lower number made at the same evaluation index,
    whatever became of them later. If some of them are still on their way to it, the decision is made
    nevertheless if none of their possible reports could change it.

    Args:
        pruner: pruner from `build_pruner`.
        trials: all trials of the study, sorted by number.
        number: number of the trial.

    Returns:
        The decision; None if it depends on trials that have neither made that report nor ended.
    """
    trial = trials[number]
    step = trial.last_step
    if step is None or isinstance(pruner, NopPruner):
        return False
    is_pending = any(_is_pending(other, step) for other in trials[:number])
    # A higher report of another trial never helps this one. Thus the extremes bound all possible decisions,
    # and with absent reports a median may not have enough trials to prune at all.
    possible_reports = (LOWEST_AUC, ABSENT, HIGHEST_AUC) if is_pending else (ABSENT,)
    decisions = {
        bool(pruner.prune(_build_comparison(trials[:number], step, pending_report), trial))
        for pending_report in possible_reports
    }
    return decisions.pop() if len(decisions) == 1 else None


def find_pending(trials: Sequence[FrozenTrial], number: int) -> list[int]:
    """Return the numbers of the trials before a trial that have neither made its last report nor ended."""
    step = trials[number].last_step or 0
    return [other.number for other in trials[:number] if _is_pending(other, step)]


def _is_pending(trial: FrozenTrial, step: int) -> bool:
    return step not in trial.intermediate_values and not trial.state.is_finished()


def _build_comparison(trials: Sequence[FrozenTrial], step: int, pending_report: float | None) -> optuna.Study:
    """Build a study in which each trial that reported at `step` is complete, with that report only.

    Args:
        trials: trials to compare with, sorted by number.
        step: evaluation index.
        pending_report: assumed report of the pending trials; None if they make none.
    """
    study = optuna.create_study(direction="maximize", study_name=STUDY_NAME)
    for trial in trials:
        assumed = pending_report if _is_pending(trial, step) else ABSENT
        report = trial.intermediate_values.get(step, assumed)
        if report is ABSENT:
            study.add_trial(create_trial(state=TrialState.FAIL))  # keeps the numbers of the others
        else:
            study.add_trial(create_trial(value=report, intermediate_values={step: report}))
    return study


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
            return HyperbandPruner(min_resource, evaluations, reduction_factor)


class HyperbandPruner(BasePruner):
    """Hyperband (Li et al., 2018) with asynchronous successive halving, a function of the reports alone.

    Optuna's pruner of this name records that a trial reached a rung before it decides on promotion, so a
    decision cannot be repeated after a kill. If trials run one after the other, both decide the same.

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
            if not math.isnan(other.intermediate_values.get(step, math.nan))
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
