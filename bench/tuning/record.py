"""Record random trials of params.yaml's search, trained to their ends: `python -m bench.tuning.record`.

`bench.tuning.surrogate` is fitted to the recorded trials. They read few and short reviews, so that a trial
takes seconds; with a smaller batch they have 150 optimizer steps, enough for the AUC to level off as it does
with all reviews. Some trials are recorded once more with another seed of the training, which shows how much
of a difference between two trials is chance. Needs the outputs of the stages download and tokenize, and about
10 minutes of one core.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from bench.training.task import taken
from bench.tuning.pruning import train
from sentiment.errors import exits_cleanly
from sentiment.logs import progress
from sentiment.params import Params, load_params
from sentiment.params.search_space import Value, get_value, replace_values
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID
from sentiment.tuning.trial_params import get_starting_values, suggest_params

RECORDED_TRIALS = Path(__file__).with_name("recorded_trials.csv")
TRIALS = 64
REPEATED_TRIALS = 16
"""Number of trials, the first ones, that are recorded with a second seed too."""
TRAINING_REVIEWS = 1200
VALIDATION_REVIEWS = 1000
"""Reviews by which trials are ranked; in the search of params.yaml there are 1,495."""
VOCABULARY_SIZE = 5000
"""With all 30,000 tokens a step spends most of its time on updating embeddings."""
CHANGES: dict[str, Value] = {
    "model.max_tokens": 48,
    "train.device": "cpu",
    "train.seed": 42,
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.schedule.warmup_steps": 15,
    "train.ema_decay": 0.97,  # averages over a fifth of the steps, as 0.99 does in params.yaml
    "tune.evaluations_per_epoch": 4,
}
TRIAL_0: dict[str, Value] = {
    "model.dropout.head": 0.2,
    "model.dropout.words": 0.25,
    "model.head.activation": "relu",
    "model.head.units": 0,
    "model.hidden_units": 128,
    "model.layers": 1,
    "train.clip.threshold": 0.4,
    "train.optimizer.learning_rate": 5.5e-3,
}
SPACE: dict[str, dict[str, Any]] = {
    "model.dropout.head": {"kind": "float", "low": 0.1, "high": 0.6},
    "model.dropout.words": {"kind": "float", "low": 0.1, "high": 0.4},
    "model.head.activation": {"kind": "categorical", "choices": ["relu", "tanh"]},
    "model.head.units": {"kind": "categorical", "choices": [0, 32]},
    "model.hidden_units": {"kind": "categorical", "choices": [64, 96, 128]},
    "model.layers": {"kind": "int", "low": 1, "high": 2},
    "train.clip.threshold": {"kind": "float", "low": 0.25, "high": 4.0, "log": True},
    "train.optimizer.learning_rate": {"kind": "float", "low": 2e-3, "high": 1e-2, "log": True},
}
"""Trial 0 and search space of params.yaml when the trials were recorded. They are repeated here, so that the
recorded trials remain usable when params.yaml changes."""
SEED = "train.seed"
VALIDATION_AUC = "validation_auc"


def name_evaluation(index: int) -> str:
    """Return the column with the intermediate AUC of an evaluation, which is counted from 1."""
    return f"intermediate_auc_{index}"


@exits_cleanly
def main() -> None:
    """Train all trials, and write each to the file as soon as it has ended."""
    params = load_recorded_params()
    reviews = _select_reviews()
    drawn = list(draw_trials(params))
    repeated = [replace_values(trial, {SEED: trial.train.seed + 1}) for trial in drawn[:REPEATED_TRIALS]]
    evaluations = range(1, 1 + params.train.epochs * params.tune.evaluations_per_epoch)
    columns = [*sorted(params.tune.space), SEED, *map(name_evaluation, evaluations), VALIDATION_AUC]
    with RECORDED_TRIALS.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for trial in progress([*repeated, *drawn], len(repeated) + len(drawn), "trials"):
            row = {name: get_value(trial, name) for name in [*params.tune.space, SEED]}
            writer.writerow(row | _measure(trial, reviews))
            file.flush()


def load_recorded_params() -> Params:
    """Return params.yaml with the trial 0, the search space and the training of the recorded trials."""
    content = replace_values(load_params(), {**CHANGES, **TRIAL_0}).model_dump()
    content["tune"]["space"] = SPACE
    return Params.model_validate(content)


def draw_trials(params: Params) -> Iterator[Params]:
    """Yield the parameters of trial 0, and of the others at random from the search space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(get_starting_values(params))
    for _ in range(TRIALS):
        yield suggest_params(study.ask(), params)


def _select_reviews() -> TrainingData:
    reviews = TrainingData.open()
    rng = np.random.default_rng(0)
    train, validation = (
        _limit_vocabulary(taken(split, rng.permutation(len(split))[:count]))
        for split, count in ((reviews.train, TRAINING_REVIEWS), (reviews.validation, VALIDATION_REVIEWS))
    )
    return replace(reviews, vocabulary_size=VOCABULARY_SIZE, train=train, validation=validation)


def _limit_vocabulary(reviews: TokenizedReviews) -> TokenizedReviews:
    """Replace the rarer tokens by the out-of-vocabulary token; token ids are sorted by frequency."""
    ids = [
        np.where(review < VOCABULARY_SIZE, review, UNKNOWN_ID).tolist()
        for review in map(reviews.__getitem__, range(len(reviews)))
    ]
    return TokenizedReviews.from_lists(ids, reviews.labels)


def _measure(params: Params, reviews: TrainingData) -> dict[str, float]:
    """Return the AUCs of a trial by column."""
    trained = train(params, reviews)
    curve = {
        name_evaluation(each.evaluation_index): round(each.intermediate_auc, 6)
        for each in trained.evaluations
    }
    return {**curve, VALIDATION_AUC: round(trained.auc, 6)}


if __name__ == "__main__":
    main()
