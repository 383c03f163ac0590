"""Quality of a model on parts of a split: by length, out-of-vocabulary rate, negation, source and film."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.errors import UserError
from sentiment.intervals import DECIMALS, Interval, estimate_auc, estimate_part_difference
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|neither|nor|nowhere|cannot|without)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
"""Negation words."""

HIGH_OOV_QUANTILE = 0.75
"""Quantile of the out-of-vocabulary rates of a split above which a rate is high."""

MIN_REVIEWS = 10
"""Minimum number of reviews of each class in a slice that may be reported as worse than the split. The normal
approximation fails below: two of each class, all ranked wrongly, have an estimated variance of 0."""


@dataclass(frozen=True)
class SliceDefinition:
    """A named part of a split.

    Attributes:
        name: name of the slice, such as `length_quartile_1`.
        description: which reviews it contains, in words.
        members: whether each review of the split is in the slice, shape (n_reviews,).
    """

    name: str
    description: str
    members: NDArray[np.bool_]


@dataclass(frozen=True)
class SliceResult:
    """Metrics of a model on a slice.

    Attributes:
        name: name of the slice.
        description: which reviews it contains, in words.
        reviews: number of reviews.
        positive_fraction: fraction of positive reviews.
        auc: ROC AUC. It and all of the following are None if the slice has fewer than two reviews, or groups,
            of a class.
        interval: confidence interval of the AUC.
        difference: AUC of the slice minus AUC of the whole split.
        difference_interval: confidence interval of the difference, which accounts for the overlap.
        below: whether the slice is worse than the whole split: the upper bound of the difference is below 0,
            and the slice has at least `MIN_REVIEWS` of each class.
    """

    name: str
    description: str
    reviews: int
    positive_fraction: float
    auc: float | None = None
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    below: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded metrics as they are written to a metrics file; without AUC, only the counts."""
        metrics: dict[str, Any] = {
            "reviews": self.reviews,
            "positive_fraction": round(self.positive_fraction, DECIMALS),
        }
        if self.auc is not None and self.interval is not None:
            metrics |= {"auc": round(self.auc, DECIMALS), "interval": self.interval.to_dict()}
        return {**metrics, "below": self.below}


def compute_slices(
    reviews: pa.Table,
    tokens: TokenizedReviews,
    scores: NDArray[np.floating],
    *,
    groups: NDArray[np.int64] | None = None,
    training_groups: Collection[str] | None = None,
    confidence_level: float = 0.95,
) -> list[SliceResult]:
    """Measure a model on the slices of a split; see `define_slices` and `measure_slices`."""
    definitions = define_slices(reviews, tokens, training_groups)
    labels = reviews["label"].to_numpy()
    return measure_slices(definitions, labels, scores, groups=groups, confidence_level=confidence_level)


def define_slices(
    reviews: pa.Table, tokens: TokenizedReviews, training_groups: Collection[str] | None = None
) -> list[SliceDefinition]:
    """Define the slices of a split. A slice without reviews is left out.

    Args:
        reviews: reviews of the split, with the columns `text`, `source` and `group`.
        tokens: the same reviews, tokenized.
        training_groups: groups, such as films, of the training split. Without them, or if no review has a
            group, there are no slices by film.

    Raises:
        ValueError: `reviews` and `tokens` differ in length.
    """
    if reviews.num_rows != len(tokens):
        raise ValueError(f"{reviews.num_rows} reviews, but {len(tokens)} tokenized reviews")
    texts = reviews["text"].to_pylist()
    sources, groups = (np.array(reviews[name].to_pylist(), dtype=object) for name in ("source", "group"))
    has_negation = np.array([NEGATION.search(text) is not None for text in texts], dtype=bool)
    definitions = [
        *_slice_by_length(tokens.lengths),
        *_slice_by_oov_rate(tokens),
        SliceDefinition("negation_with", "contain a negation word", has_negation),
        SliceDefinition("negation_without", "contain no negation word", ~has_negation),
        *(
            SliceDefinition(f"source_{source}", f"from the source {source}", sources == source)
            for source in sorted(set(sources))
        ),
    ]
    if training_groups is not None:
        known = np.array([group is not None for group in groups], dtype=bool)
        seen = np.array([group in training_groups for group in groups], dtype=bool)
        definitions += [
            SliceDefinition("film_in_training", "film (group) is in the training split", known & seen),
            SliceDefinition("film_new", "film (group) is not in the training split", known & ~seen),
        ]
    return [definition for definition in definitions if definition.members.any()]


def _slice_by_length(lengths: NDArray[np.int64]) -> list[SliceDefinition]:
    """Return the quartiles of the number of tokens; reviews of equal length are in the same quartile."""
    if len(lengths) == 0:
        return []
    quartiles = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths)
    definitions = []
    for quartile in np.unique(quartiles):
        members = quartiles == quartile
        shortest, longest = lengths[members].min(), lengths[members].max()
        description = f"{shortest:,} to {longest:,} tokens"
        definitions.append(SliceDefinition(f"length_quartile_{quartile + 1}", description, members))
    return definitions


def _slice_by_oov_rate(tokens: TokenizedReviews) -> list[SliceDefinition]:
    """Return slices by out-of-vocabulary rate, cut at 0 and at the quantile `HIGH_OOV_QUANTILE`."""
    cumulative = np.concatenate([[0], np.cumsum(tokens.ids == UNKNOWN_ID)])
    rates = np.diff(cumulative[tokens.offsets]) / np.maximum(tokens.lengths, 1)
    limit = float(np.quantile(rates, HIGH_OOV_QUANTILE)) if len(rates) else 0.0
    none, high = rates == 0, (rates > limit) & (rates > 0)
    return [
        SliceDefinition("oov_none", "no out-of-vocabulary token", none),
        SliceDefinition("oov_some", f"at most {limit:.1%} out of vocabulary", ~none & ~high),
        SliceDefinition("oov_high", f"more than {limit:.1%} out of vocabulary", high),
    ]


def measure_slices(
    definitions: Sequence[SliceDefinition],
    labels: NDArray[np.int8],
    scores: NDArray[np.floating],
    *,
    groups: NDArray[np.int64] | None = None,
    confidence_level: float = 0.95,
) -> list[SliceResult]:
    """Measure the AUC of each slice and compare it with the AUC of the whole split.

    Args:
        definitions: slices of the split, from `define_slices`.
        labels: labels of the split, 0 or 1, shape (n_reviews,).
        scores: scores or logits of the model, shape (n_reviews,).
        groups: group of each review, shape (n_reviews,); None if all are independent.
        confidence_level: confidence level of the intervals, between 0 and 1.

    Raises:
        UserError: a score is not finite, or the split has fewer than two reviews or groups of a class.
    """
    estimate_auc(labels, scores, groups)  # checks the whole split; below, only a slice can be too small
    return [_measure_slice(part, labels, scores, groups, confidence_level) for part in definitions]


def _measure_slice(
    part: SliceDefinition,
    labels: NDArray[np.int8],
    scores: NDArray[np.floating],
    groups: NDArray[np.int64] | None,
    confidence_level: float,
) -> SliceResult:
    members = part.members
    counts = [int(np.sum(labels[members] == label)) for label in (0, 1)]
    result = SliceResult(part.name, part.description, sum(counts), counts[1] / sum(counts))
    try:
        auc = estimate_auc(labels[members], scores[members], None if groups is None else groups[members])
    except UserError:
        return result
    difference = estimate_part_difference(labels, scores, members, groups)
    bounds = difference.compute_interval(confidence_level)
    return replace(
        result,
        auc=auc.value,
        interval=auc.compute_interval(confidence_level),
        difference=difference.value,
        difference_interval=bounds,
        below=bounds.high < 0 and min(counts) >= MIN_REVIEWS,
    )


def tabulate_slices(slices: Sequence[SliceResult]) -> pd.DataFrame:
    """Return the slices as a table with one row each; values that a slice lacks are missing."""
    return pd.DataFrame(
        [
            {
                "name": part.name,
                "description": part.description,
                "reviews": part.reviews,
                "positive_fraction": part.positive_fraction,
                "auc": part.auc,
                "low": part.interval.low if part.interval else None,
                "high": part.interval.high if part.interval else None,
                "difference": part.difference,
                "difference_low": part.difference_interval.low if part.difference_interval else None,
                "difference_high": part.difference_interval.high if part.difference_interval else None,
                "below": part.below,
            }
            for part in slices
        ]
    )
