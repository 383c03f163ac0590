"""Optimizer steps that the default pruner saves, and the AUC that it costs.

Each trial is trained once to its end, and the AUC of every intermediate evaluation is recorded. Evaluations
do not change a training, and trainings are deterministic. Therefore the pruner makes the same decisions on
the recorded values as in a search of the same trials.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from bench.bars import Bar
from bench.training.task import Changes, open_task
from sentiment.params import Params
from sentiment.tokens.batches import TrainingData
from sentiment.training.epoch_metrics import EvaluationSchedule, IntermediateEvaluation
from sentiment.training.loop import fit
from sentiment.tuning.holdout import select_tuning_reviews
from sentiment.tuning.sampling import build_pruner, build_sampler
from sentiment.tuning.trial_params import get_starting_values, suggest_params

logger = logging.getLogger(__name__)

TRIALS = 12
SAVED_BAR = 0.45
WORSE_BAR = 0.001


@dataclass(frozen=True)
class Trained:
    """A trial that was trained to its end: its intermediate evaluations, and the AUC of its best epoch."""

    evaluations: tuple[IntermediateEvaluation, ...]
    auc: float


@dataclass(frozen=True)
class Pruned:
    """Result of a search of such trials with a pruner.

    Attributes:
        saved: share of the optimizer steps of all trials that were not taken.
        best: highest tuning AUC of the trials that finished.
        pruned_trials: number of trials that were pruned.
    """

    saved: float
    best: float
    pruned_trials: int


def pruning_bars(reviews: int | None, trials: int = TRIALS) -> list[Bar]:
    """Train the trials of params.yaml's search on some of the reviews; compare the pruner with its bars."""
    task = open_task(Changes(reviews))
    trained = train_all(task.params, task.reviews, trials)
    pruned = replay(task.params, trained)
    best = max(trial.auc for trial in trained)
    logger.info(f"{pruned.pruned_trials} of {trials} trials were pruned")
    worse = best - pruned.best
    value = f"{worse:.4f} ({pruned.best:.4f} against {best:.4f})"
    return [
        Bar(
            "share of training steps saved by pruning",
            f"{pruned.saved:.2f}",
            f"≥ {SAVED_BAR}",
            pruned.saved >= SAVED_BAR,
        ),
        Bar("best AUC lost by it", value, f"≤ {WORSE_BAR}", worse <= WORSE_BAR),
    ]


def train_all(params: Params, reviews: TrainingData, trials: int) -> list[Trained]:
    """Train a search's trials one after the other, each to its end."""
    study = optuna.create_study(direction="maximize", sampler=build_sampler(params.tune))
    study.enqueue_trial(get_starting_values(params))
    tuning_reviews = select_tuning_reviews(reviews, params.tune.active_holdout)
    trained = []
    for number in range(trials):
        trial = study.ask()
        drawn = suggest_params(trial, params)
        evaluations: list[IntermediateEvaluation] = []
        result = fit(
            drawn.model,
            drawn.train,
            tuning_reviews,
            on_epoch=lambda _: None,
            description=f"trial {number}",
            evaluations=EvaluationSchedule(params.tune.evaluations_per_epoch, evaluations.append),
        )
        study.tell(trial, result.best.validation_auc)
        trained.append(Trained(tuple(evaluations), result.best.validation_auc))
        logger.info(f"trial {number}: {result.best.validation_auc:.4f}")
    return trained


def replay(params: Params, trained: Sequence[Trained]) -> Pruned:
    """Report the trials' intermediate values to the pruner of `params`; end each trial that it prunes."""
    study = optuna.create_study(direction="maximize", study_name="tune", pruner=build_pruner(params))
    taken, pruned, best = 0, 0, 0.0
    for each in trained:
        trial = study.ask()
        for evaluation in each.evaluations:
            trial.report(evaluation.intermediate_auc, evaluation.evaluation_index)
            if evaluation.optimizer_steps < evaluation.planned_steps and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                pruned += 1
                break
        else:
            study.tell(trial, each.auc)
            best = max(best, each.auc)
        taken += evaluation.optimizer_steps
    planned = sum(each.evaluations[-1].planned_steps for each in trained)
    return Pruned(1 - taken / planned, best, pruned)
