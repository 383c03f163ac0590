"""Quality of a model on parts of a split: by length, out-of-vocabulary rate, negation, source and film."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from sentiment.intervals import DECIMALS, Interval, compute_delong_interval
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID

NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|neither|nor|nowhere|no one|no(?:body)|cannot|without)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
"""Negation words. In `no(?:body)`, the group only keeps the word out of the search for private words."""

HIGH_OOV_QUANTILE = 0.75
"""Quantile of the out-of-vocabulary rates of a split above which a rate is high."""

MIN_REVIEWS = 10
"""Minimum number of reviews of each class in a slice that may be reported as worse than the split. The normal
approximation fails below: two of each class, all ranked wrongly, have an estimated variance of 0."""


@dataclass(frozen=True)
class SliceDefinition:
    """A named part of a split."""

    criterion: str
    """What the slice was selected by: length, oov_rate, negation, source or film."""
    name: str
    """Name of the slice among those of the same criterion."""
    description: str
    """Which reviews it contains, in words."""
    members: NDArray[np.bool_]
    """Whether each review of the split is in the slice, shape (reviews,)."""


@dataclass(frozen=True)
class Slice:
    """Metrics of a model on a slice."""

    criterion: str
    name: str
    description: str
    reviews: int
    positive_fraction: float
    auc: float | None
    """ROC AUC; None if a class has fewer than two reviews in the slice, as for the intervals."""
    interval: Interval | None
    """DeLong's confidence interval of the AUC."""
    difference: float | None
    """AUC of the slice minus AUC of the whole split."""
    difference_interval: Interval | None
    """Confidence interval of the difference, in which the reviews of the slice count in both AUCs."""
    below: bool
    """Whether the slice is worse than the whole split: the upper bound of the difference is below 0, and each
    class has at least `MIN_REVIEWS` reviews."""

    def __str__(self) -> str:
        if self.auc is None or self.interval is None:
            return f"{self.criterion} {self.name}: {self.reviews:,} reviews, no AUC"
        interval = f"{self.interval.low:.4f} to {self.interval.high:.4f}"
        return f"{self.criterion} {self.name}: AUC {self.auc:.4f} ({interval}) on {self.reviews:,} reviews"

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded metrics as they are written to a metrics file; without AUC, only the counts."""
        counts = {"reviews": self.reviews, "positive_fraction": round(self.positive_fraction, DECIMALS)}
        if self.auc is None or self.interval is None:
            return {**counts, "below": self.below}
        bounds = {"low": round(self.interval.low, DECIMALS), "high": round(self.interval.high, DECIMALS)}
        return {**counts, "auc": round(self.auc, DECIMALS), "interval": bounds, "below": self.below}


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
        SliceDefinition("negation", "with", "contain a negation word", has_negation),
        SliceDefinition("negation", "without", "contain no negation word", ~has_negation),
        *(
            SliceDefinition("source", source, f"from the source {source}", sources == source)
            for source in sorted(set(sources))
        ),
    ]
    if training_groups is not None:
        known = np.array([group is not None for group in groups], dtype=bool)
        seen = np.array([group in training_groups for group in groups], dtype=bool)
        definitions += [
            SliceDefinition("film", "in_training", "film (group) is in the training split", known & seen),
            SliceDefinition("film", "new", "film (group) is not in the training split", known & ~seen),
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
        definitions.append(SliceDefinition("length", f"quartile_{quartile + 1}", description, members))
    return definitions


def _slice_by_oov_rate(tokens: TokenizedReviews) -> list[SliceDefinition]:
    """Return slices by out-of-vocabulary rate, cut at 0 and at the quantile `HIGH_OOV_QUANTILE`."""
    cumulative = np.concatenate([[0], np.cumsum(tokens.ids == UNKNOWN_ID)])
    rates = np.diff(cumulative[tokens.offsets]) / np.maximum(tokens.lengths, 1)
    limit = float(np.quantile(rates, HIGH_OOV_QUANTILE)) if len(rates) else 0.0
    none, high = rates == 0, (rates > limit) & (rates > 0)
    return [
        SliceDefinition("oov_rate", "none", "no out-of-vocabulary token", none),
        SliceDefinition("oov_rate", "some", f"at most {limit:.1%} out of vocabulary", ~none & ~high),
        SliceDefinition("oov_rate", "high", f"more than {limit:.1%} out of vocabulary", high),
    ]


def measure_slices(
    definitions: Sequence[SliceDefinition],
    labels: NDArray[np.int8],
    scores: NDArray[np.floating],
    confidence_level: float = 0.95,
) -> list[Slice]:
    """Measure the AUC of each slice and compare it with the AUC of the whole split.

    Args:
        definitions: slices of the split, from `define_slices`.
        labels: labels of the split, 0 or 1, at least two of each, shape (reviews,).
        scores: scores or logits of the model, shape (reviews,).
        confidence_level: confidence level of the intervals, between 0 and 1.
    """
    whole_auc, whole_influence = _compute_auc(labels, scores)
    slices = []
    for slice_ in definitions:
        members = slice_.members
        positive, negative = (int(np.sum(labels[members] == label)) for label in (1, 0))
        measured: tuple[Any, ...] = (None, None, None, None, False)
        if min(positive, negative) >= 2:
            auc, influence = _compute_auc(labels[members], scores[members])
            influences = -whole_influence
            influences[members] += influence
            difference = auc - whole_auc
            margin = float(norm.ppf((1 + confidence_level) / 2) * np.sqrt(np.sum(influences**2)))
            bounds = Interval(max(-1.0, difference - margin), min(1.0, difference + margin))
            below = bounds.high < 0 and min(positive, negative) >= MIN_REVIEWS
            interval = compute_delong_interval(labels[members], scores[members], confidence_level)
            measured = (auc, interval, difference, bounds, below)
        reviews = positive + negative
        counts = (reviews, positive / reviews)
        slices.append(Slice(slice_.criterion, slice_.name, slice_.description, *counts, *measured))
    return slices


def _compute_auc(labels: NDArray[np.int8], scores: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """Compute the AUC and the influence of each review on it, shape (reviews,).

    The influence is the deviation of DeLong's placement value from its mean, scaled so that the sum of the
    squares is DeLong's variance of the AUC. The difference between two AUCs on overlapping reviews has the
    differences of the influences, so the sum of their squares is its variance (DeLong et al., 1988).
    """
    influences = np.empty(len(labels))
    ranks, auc = rankdata(scores), 0.0
    for label in (0, 1):
        rows = labels == label
        size, others = int(rows.sum()), int((~rows).sum())
        lower = (ranks[rows] - rankdata(scores[rows])) / others  # ties count half
        placements = lower if label == 1 else 1 - lower
        auc = float(placements.mean())
        influences[rows] = (placements - auc) / np.sqrt(size * (size - 1))
    return auc, influences


def tabulate_slices(slices: Sequence[Slice]) -> pd.DataFrame:
    """Return the slices as a table with one row each; values that a slice lacks are missing."""
    return pd.DataFrame(
        [
            {
                "criterion": slice_.criterion,
                "name": slice_.name,
                "description": slice_.description,
                "reviews": slice_.reviews,
                "positive_fraction": slice_.positive_fraction,
                "auc": slice_.auc,
                "low": slice_.interval.low if slice_.interval else None,
                "high": slice_.interval.high if slice_.interval else None,
                "difference": slice_.difference,
                "difference_low": slice_.difference_interval.low if slice_.difference_interval else None,
                "difference_high": slice_.difference_interval.high if slice_.difference_interval else None,
                "below": slice_.below,
            }
            for slice_ in slices
        ]
    )


def summarize_slices(slices: Sequence[Slice]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the slices for a metrics file, by criterion and name."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for slice_ in slices:
        summary.setdefault(slice_.criterion, {})[slice_.name] = slice_.to_dict()
    return summary
