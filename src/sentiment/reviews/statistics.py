"""What a set of reviews looks like, for the metric file."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def describe(words: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[str, Any]:
    """Sum up one split: its reviews, the share of positive ones, and words per review.

    words: shape (reviews,), words of each, split at white space. labels: shape (reviews,), 0 or 1; anything
    else is no label.
    """
    if not len(words):
        return {"reviews": 0}
    labelled = labels[(labels == 0) | (labels == 1)]
    balance = {"positive_share": round(float(labelled.mean()), 6)} if len(labelled) else {}
    return {
        "reviews": len(words),
        **balance,
        "words": {
            "mean": round(float(words.mean()), 2),
            "median": float(np.median(words)),
            "p95": float(np.percentile(words, 95)),
            "longest": int(words.max()),
        },
    }
