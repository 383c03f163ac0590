"""What the reviews as a whole must be like; past a limit of `download.checks` the stage stops."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params.data import NearDuplicateLimits, ReviewChecks
from sentiment.reviews.near_duplicates import NearDuplicates
from sentiment.reviews.spool import Rows


def refuse_duplicates(share: float, names: Callable[[], Sequence[str]], checks: ReviewChecks) -> None:
    """Raise UserError that names some dropped rows, where their share is past the limit."""
    if share > checks.duplicates:
        what = (
            f"reviews: {share:.1%} are duplicates, more than download.checks.duplicates "
            f"({checks.duplicates:.1%}); for example:"
        )
        raise UserError("\n  ".join([what, *(f"{row}: its text stands elsewhere too" for row in names())]))


def refuse_near_duplicates(found: NearDuplicates, limits: NearDuplicateLimits) -> None:
    """Raise UserError that names the closest pairs, where too many test reviews have a near-duplicate."""
    if found.share > limits.most:
        what = (
            f"reviews: {found.share:.1%} of the test reviews have a near-duplicate in another split, more "
            f"than download.checks.near_duplicates.most ({limits.most:.1%}). Drop them from "
            "the other sources, or raise the limit; for example:"
        )
        raise UserError("\n  ".join([what, *map(str, found.closest)]))


def refuse_imbalance(rows: Rows, kept: NDArray[np.bool_], checks: ReviewChecks) -> None:
    """Raise UserError where a labelled split lacks a label, or has too many of one."""
    for split in paths.LABELLED_SPLITS:
        labels = rows.labels[kept & rows.in_split(split)]
        found = np.unique(labels)
        if found.tolist() != [0, 1]:
            raise UserError(
                f"reviews: the {split} split has {len(labels)} review(s), with labels {found.tolist()}; "
                "it needs both 0 and 1. Add reviews, or change download.split"
            )
        share = float(labels.mean())
        if abs(share - 0.5) > checks.imbalance:
            raise UserError(
                f"reviews: {share:.1%} of the {split} split are positive, further from half than "
                f"download.checks.imbalance ({checks.imbalance:.1%}) allows"
            )
