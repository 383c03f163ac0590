"""Simulated labels, scores and groups with known properties."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit


def draw_scores(
    reviews: int, seed: int, gain: float = 0.0
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
    """Draw labels and the scores of two models with many errors in common.

    `gain` raises the first model's scores of positive reviews.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, reviews).astype(np.int8)
    shared = rng.normal(labels * 1.5)
    first, second = (shared + 0.4 * rng.normal(size=reviews) for _ in range(2))
    return labels, first + gain * labels, second


def draw_grouped(
    groups: int, seed: int
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Draw labels, scores of two models and groups, like films: most reviews of a group have the same label.

    Each model errs alike on all reviews of a group.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, groups)
    codes = np.repeat(np.arange(groups), sizes)
    labels = (rng.random(len(codes)) < rng.choice([0.1, 0.9], groups)[codes]).astype(np.int8)
    scores = [rng.normal(labels * 1.2) + rng.normal(size=groups)[codes] for _ in range(2)]
    return labels, scores[0], scores[1], codes


def draw_probabilities(
    reviews: int, seed: int, temperature: float = 1.0
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
    """Draw labels, logits and probabilities of a model that is overconfident by a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=reviews) * 3
    labels = (rng.random(reviews) < expit(logits / temperature)).astype(np.int8)
    return labels, logits, expit(logits)
