"""The verdict on models that were trained with 10% flipped labels, against models with the right ones."""

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.bars import Bar
from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.evaluation.verdict import Comparison, compare_scores
from sentiment.model.classifier import predict_logits
from sentiment.params import Params, load_params
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.training.loop import fit

logger = logging.getLogger(__name__)

SEEDS = 20
FLIPPED_SHARE = 0.1
TRAINED_ON = 3_000
VALIDATED_ON = 500
COMPARED_ON = 2_500
SMALL_MODEL = {"max_tokens": 128, "embedding_dim": 32, "hidden_units": 32}
"""Changes of the model in params.yaml, so that a training takes a few seconds."""


def flip_labels(reviews: TokenizedReviews, share: float, rng: np.random.Generator) -> TokenizedReviews:
    """Return the reviews with the labels of a random share of them inverted."""
    flipped = rng.permutation(len(reviews)) < round(share * len(reviews))
    labels = np.where(flipped, 1 - reviews.labels, reviews.labels)
    return TokenizedReviews.from_arrays(np.asarray(reviews.ids), reviews.lengths, labels)


def compare_flipped(seed: int, data: TrainingData, test: TokenizedReviews, params: Params) -> Comparison:
    """Train two models that differ in the labels alone; compare the one with flipped labels with the other.

    Args:
        seed: seed of the training and of the reviews whose labels are flipped.
        data: the reviews to train and validate on.
        test: the reviews to compare on.
        params: parameters, with those of the small model.
    """
    train = params.train.model_copy(update={"seed": seed})
    flipped = replace(data, train=flip_labels(data.train, FLIPPED_SHARE, np.random.default_rng(seed)))
    logits: list[NDArray[np.float32]] = [
        predict_logits(fit(params.model, train, reviews, lambda _: None).model, test)
        for reviews in (flipped, data)
    ]
    return compare_scores(
        test.labels,
        *logits,
        confidence_level=params.evaluate.confidence_level,
        margin=params.evaluate.margin,
    )


def _sample(reviews: TokenizedReviews, size: int) -> TokenizedReviews:
    return reviews.take(np.random.default_rng(0).permutation(len(reviews))[:size])


def flipped_labels_bar(seeds: int = SEEDS) -> Bar:
    """Return the bar on the verdicts of all seeds."""
    params = load_params()
    train = params.train.model_copy(update={"device": "cpu", "unlabelled": "ignore"})
    params = params.model_copy(update={"train": train, "model": params.model.model_copy(update=SMALL_MODEL)})
    data = TrainingData.open()
    data = replace(
        data, train=_sample(data.train, TRAINED_ON), validation=_sample(data.validation, VALIDATED_ON)
    )
    test = encode(load_tokenizer(paths.TOKENIZER), read_reviews(paths.reviews("test")))
    test = _sample(test, COMPARED_ON)
    comparisons = []
    for seed in range(seeds):
        comparisons.append(compare_flipped(seed, data, test, params))
        logger.info(f"flipped labels, seed {seed}: {comparisons[-1]}")
    verdicts = [comparison.verdict for comparison in comparisons]
    counts = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in sorted(set(verdicts)))
    return Bar(
        f"{FLIPPED_SHARE:.0%} flipped labels against right ones, {seeds} seeds",
        counts,
        "never better or no worse",
        not any(comparison.is_no_worse for comparison in comparisons),
    )
