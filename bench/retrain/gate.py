"""Decisions of the model gate on real reviews: small models before and after new ones arrive.

Each seed draws other reviews for the champion, and other new ones. Labels of new reviews are flipped to see
what the model gate alone would promote; in `sentiment retrain`, the data gate comes before it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.bars import Bar
from bench.verdict.flipped_labels import SMALL_MODEL, flip_labels
from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.ledger import Outcome
from sentiment.model.classifier import predict_logits
from sentiment.params import Params, load_params
from sentiment.retraining.model_gate import LEVEL, compare_at_level, decide
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.training.loop import fit

logger = logging.getLogger(__name__)

SEEDS = 10
TRAINED_ON = 1_000
"""Reviews that the champion is trained on."""
VALIDATED_ON = 500
WARMUP_STEPS = 10
"""Of the 32 steps of the champion's training."""
FLIPPED_ROWS = 400
"""New reviews of a batch with flipped labels."""
FLIPPED_SHARES = (0.1, 0.25, 1.0)


def gate_bars() -> list[Bar]:
    """Return the bar on good reviews that double a training set, and the outcomes with flipped labels."""
    params = load_params()
    schedule = params.train.schedule.model_copy(update={"warmup_steps": WARMUP_STEPS})
    train = params.train.model_copy(update={"device": "cpu", "unlabelled": "ignore", "schedule": schedule})
    params = params.model_copy(update={"train": train, "model": params.model.model_copy(update=SMALL_MODEL)})
    data = TrainingData.open()
    test = encode(load_tokenizer(paths.TOKENIZER), read_reviews(paths.reviews("test")))
    outcomes = [_simulate(seed, data, test, params) for seed in range(SEEDS)]
    promoted = {name: sum(seed[name] == "promote" for seed in outcomes) for name in outcomes[0]}
    good, *flipped = promoted
    return [
        Bar(
            f"{good}: promoted",
            f"{promoted[good]} of {SEEDS} seeds",
            f"≥ {SEEDS * 8 // 10}",
            promoted[good] >= SEEDS * 8 // 10,
        ),
        *(
            Bar(f"{name}: promoted by the model gate alone", f"{promoted[name]}", "for comparison", None)
            for name in flipped
        ),
    ]


def _simulate(seed: int, data: TrainingData, test: TokenizedReviews, params: Params) -> dict[str, Outcome]:
    """Train a champion and its challengers; return the outcome for each challenger, by its description."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.train))
    known, new = rows[:TRAINED_ON], rows[TRAINED_ON : 2 * TRAINED_ON]
    validation = data.validation.take(rng.permutation(len(data.validation))[:VALIDATED_ON])
    params = params.model_copy(update={"train": params.train.model_copy(update={"seed": seed})})

    def score(parts: Sequence[TokenizedReviews]) -> NDArray[np.float32]:
        reviews = replace(data, train=concatenate(parts), validation=validation)
        return predict_logits(fit(params.model, params.train, reviews, lambda _: None).model, test)

    old = data.train.take(known)
    champion = score([old])
    challengers = {f"{TRAINED_ON:,} new reviews beside {TRAINED_ON:,}": data.train.take(new)}
    for share in FLIPPED_SHARES:
        batch = data.train.take(new[:FLIPPED_ROWS])
        name = f"{FLIPPED_ROWS} new reviews beside {TRAINED_ON:,}, {share:.0%} of labels flipped"
        challengers[name] = flip_labels(batch, share, rng)
    outcomes: dict[str, Outcome] = {}
    for name, batch in challengers.items():
        found = compare_at_level(
            test.labels,
            score([old, batch]),
            champion,
            name="champion",
            level=LEVEL / params.retrain.looks,
            margin=params.evaluate.margin,
            max_margin=params.retrain.max_margin,
        )
        outcomes[name], _, reason = decide({"champion": found}, data_changed=True)
        logger.info(f"seed {seed}, {name}: {outcomes[name]}, {reason}")
    return outcomes


def concatenate(parts: Sequence[TokenizedReviews]) -> TokenizedReviews:
    """Return the reviews of several tables in one."""
    ids, lengths, labels = (
        np.concatenate([np.asarray(getattr(part, name)) for part in parts])
        for name in ("ids", "lengths", "labels")
    )
    return TokenizedReviews.from_arrays(ids, lengths, labels)
