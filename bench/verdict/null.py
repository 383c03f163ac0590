"""How often one of two equal models is found `better`, with the selection of a finalist included.

Two real models become equal models when their ranks are swapped review by review with probability one half.
Each resampling swaps anew for the configured model and for every candidate, and divides the reviews at random
into those that select the candidate with the highest AUC and those that compare it with the configured model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.bars import Bar
from bench.verdict.scores import Scores
from sentiment.evaluation.verdict import compare_scores

RESAMPLINGS = 2_000
CANDIDATES = 10
"""More than `tune.trials`: the more candidates, the more a selection on the same reviews deceives."""
COMPARED_SHARE = 0.4
"""Share of the reviews that compare; the others select."""
GROUP_SIZE = 8
"""Mean number of reviews in a group."""


@dataclass(frozen=True)
class Design:
    """What a simulation draws, and what `compare_scores` is given of it.

    Attributes:
        name: name in the table.
        by_group: True if the reviews of a group are swapped and divided together.
        with_groups: True if the verdict is given the groups.
        on_other_reviews: False if the reviews that selected the candidate also compare it.
        valid: True if the share of false `better` must be within the level.
    """

    name: str
    by_group: bool = False
    with_groups: bool = False
    on_other_reviews: bool = True
    valid: bool = True


DESIGNS = (
    Design("independent reviews"),
    Design("groups", by_group=True, with_groups=True),
    Design("groups, not given to the comparison", by_group=True, valid=False),
    Design("independent reviews, compared on those that selected", on_other_reviews=False, valid=False),
)


def build_groups(scores: Scores, rng: np.random.Generator) -> NDArray[np.int64]:
    """Group reviews of the same label on which the models differ alike, as on the reviews of a film.

    Such groups are the hardest case for a method that takes reviews as independent.

    Returns:
        Group of each review, shape (n_reviews,); the sizes are geometric with mean `GROUP_SIZE`.
    """
    order = np.lexsort((scores.first - scores.second, scores.labels))
    starts = rng.random(len(scores)) < 1 / GROUP_SIZE
    groups = np.empty(len(scores), dtype=np.int64)
    groups[order] = np.cumsum(starts)
    return groups


def simulate_false_better(
    scores: Scores, design: Design, confidence_level: float, margin: float, resamplings: int = RESAMPLINGS
) -> float:
    """Return the share of resamplings in which the finalist is found `better` than an equal model."""
    rng = np.random.default_rng(0)
    units = build_groups(scores, rng) if design.by_group else np.arange(len(scores))
    n_units = int(units.max()) + 1
    found = 0
    for _ in range(resamplings):
        compares = (rng.random(n_units) < COMPARED_SHARE)[units]
        selects = ~compares
        if not design.on_other_reviews:
            compares = selects
        swapped = (rng.random((CANDIDATES + 1, n_units)) < 0.5)[:, units]
        configured, *candidates = np.where(swapped, scores.second, scores.first)
        finalist = max(candidates, key=lambda ranks: _sum_positive_ranks(scores.labels, ranks, selects))
        found += compare_scores(
            scores.labels[compares],
            finalist[compares],
            configured[compares],
            groups=units[compares] if design.with_groups else None,
            confidence_level=confidence_level,
            margin=margin,
        ).is_better
    return found / resamplings


def _sum_positive_ranks(
    labels: NDArray[np.int8], scores: NDArray[np.float64], rows: NDArray[np.bool_]
) -> float:
    """Return the Mann-Whitney rank sum, which orders models on the same reviews as the AUC does."""
    return float(rankdata(scores[rows])[labels[rows] == 1].sum())


def null_bars(scores: Scores, confidence_level: float, margin: float) -> list[Bar]:
    """Return a bar for each design; the last two show what groups and the holdout split are for."""
    return [
        false_better_bar(
            design, simulate_false_better(scores, design, confidence_level, margin), confidence_level
        )
        for design in DESIGNS
    ]


def false_better_bar(design: Design, found: float, confidence_level: float) -> Bar:
    """Return a bar that holds if the share of false `better` is at most half of what the level leaves.

    Two Monte Carlo standard errors are allowed.
    """
    level = (1 - confidence_level) / 2
    limit = level + 2 * (level * (1 - level) / RESAMPLINGS) ** 0.5
    return Bar(
        f"false `better`, {RESAMPLINGS:,} resamplings: {design.name}",
        f"{found:.2%}",
        f"≤ {limit:.2%}" if design.valid else "for comparison",
        found <= limit if design.valid else None,
    )
