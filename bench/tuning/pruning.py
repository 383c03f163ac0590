"""Optimizer steps that the pruner of params.yaml saves, and the AUC that it costs.

The search is that of params.yaml, with its `tune.max_parallel`. Each of its trials is trained once to its
end, and its intermediate evaluations are recorded. Evaluations do not affect a training, and trainings are
deterministic. Therefore the pruner decides on the recorded values as it does in a search, and the best of all
trainings is the result without pruning.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.bars import Bar
from bench.training.task import Changes, open_task
from sentiment.params import Params
from sentiment.tokens.batches import TrainingData
from sentiment.training.epoch_metrics import EvaluationSchedule, IntermediateEvaluation
from sentiment.training.loop import fit
from sentiment.tuning.pruning import build_pruner, decide_pruning
from sentiment.tuning.sampling import count_trials, draw_trial
from sentiment.tuning.trial_params import apply_values, get_starting_values

logger = logging.getLogger(__name__)

SAVED_BAR = 0.45
WORSE_BAR = 0.001


@dataclass(frozen=True)
class Trained:
    """A trial that was trained to its end: its intermediate evaluations, and the AUC of its best epoch."""

    evaluations: tuple[IntermediateEvaluation, ...]
    auc: float


@dataclass(frozen=True)
class ReplayedSearch:
    """A search whose trials were trained to their end.

    Attributes:
        trained: what each trial reaches without pruning.
        trials: the same trials with pruning, as a study has them.
    """

    trained: list[Trained]
    trials: list[FrozenTrial]

    @property
    def saved(self) -> float:
        """Share of the optimizer steps of all trials that pruning saves."""
        last_evaluations = [
            each.evaluations[len(trial.intermediate_values) - 1]
            for each, trial in zip(self.trained, self.trials, strict=True)
        ]
        planned = sum(evaluation.planned_steps for evaluation in last_evaluations)
        return 1 - sum(evaluation.optimizer_steps for evaluation in last_evaluations) / planned

    @property
    def best(self) -> float:
        """Highest validation AUC of the trials that pruning lets finish."""
        return max(trial.value or 0.0 for trial in self.trials if trial.state == TrialState.COMPLETE)

    @property
    def best_without_pruning(self) -> float:
        """Highest validation AUC of all trials."""
        return max(each.auc for each in self.trained)


def pruning_bars(reviews: int | None) -> list[Bar]:
    """Run the search of params.yaml on some of the reviews; compare its pruner with the bars."""
    task = open_task(Changes(reviews))
    search = replay_search(task.params, lambda drawn: train(drawn, task.reviews))
    pruned = sum(trial.state == TrialState.PRUNED for trial in search.trials)
    logger.info(f"{pruned} of {len(search.trials)} trials were pruned")
    worse = search.best_without_pruning - search.best
    value = f"{worse:.4f} ({search.best:.4f} against {search.best_without_pruning:.4f})"
    return [
        Bar(
            f"share of training steps saved by pruning, max_parallel {task.params.tune.max_parallel}",
            f"{search.saved:.2f}",
            f"≥ {SAVED_BAR}",
            search.saved >= SAVED_BAR,
        ),
        Bar("best AUC lost by it", value, f"≤ {WORSE_BAR}", worse <= WORSE_BAR),
    ]


def train(params: Params, reviews: TrainingData) -> Trained:
    """Train a configuration to its end."""
    evaluations: list[IntermediateEvaluation] = []
    schedule = EvaluationSchedule(params.tune.evaluations_per_epoch, evaluations.append)
    result = fit(params.model, params.train, reviews, on_epoch=lambda _: None, evaluations=schedule)
    return Trained(tuple(evaluations), result.best.validation_auc)


def replay_search(params: Params, train: Callable[[Params], Trained]) -> ReplayedSearch:
    """Draw and train the trials of a search one after the other, each to its end, and prune them afterwards.

    A trial is drawn from the results of trials 0 to n - `tune.max_parallel`, and pruned in comparison with
    the reports of all trials of lower number. The results are therefore those of any number of workers.

    Args:
        params: all parameters of params.yaml.
        train: function that trains the parameters of a trial.
    """
    search = ReplayedSearch([], [])
    for number in range(count_trials(params)):
        drawn = draw_trial(params, search.trials, [get_starting_values(params)])
        search.trained.append(train(apply_values(params, drawn.params)))
        search.trials.append(replay_trial(params, search.trials, drawn, search.trained[number]))
        auc = search.trained[number].auc
        logger.info(f"trial {number}: {auc:.4f}, {search.trials[number].state.name}")
    return search


def replay_trial(
    params: Params, earlier: Sequence[FrozenTrial], drawn: FrozenTrial, trained: Trained
) -> FrozenTrial:
    """Report the intermediate values of a trial until the pruner ends it; return it as it ended."""
    pruner, number = build_pruner(params), len(earlier)
    reports: dict[int, float] = {}
    for evaluation in trained.evaluations:
        reports[evaluation.evaluation_index] = evaluation.intermediate_auc
        trial = _build_trial(drawn, number, TrialState.RUNNING, None, reports)
        is_last = evaluation.optimizer_steps == evaluation.planned_steps
        if not is_last and decide_pruning(pruner, [*earlier, trial], number):
            # The value of a pruned trial is its last report, as `Study.tell` records it.
            return _build_trial(drawn, number, TrialState.PRUNED, evaluation.intermediate_auc, reports)
    return _build_trial(drawn, number, TrialState.COMPLETE, trained.auc, reports)


def _build_trial(
    drawn: FrozenTrial, number: int, state: TrialState, value: float | None, reports: dict[int, float]
) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=value,
        params=drawn.params,
        distributions=dict(drawn.distributions),
        intermediate_values=dict(reports),
    )
    trial.number = number
    return trial
