"""What a set of reviews looks like, for the metric file."""

from typing import Any

import numpy as np
import pyarrow as pa


def describe(reviews: pa.Table) -> dict[str, Any]:
    """Count reviews, the share of positive ones, and words per review (split at white space)."""
    words = np.array([len(text.split()) for text in reviews["text"].to_pylist()])
    return {
        "reviews": reviews.num_rows,
        "positive_share": round(float(np.mean(reviews["label"].to_numpy())), 6),
        "words": {
            "mean": round(float(words.mean()), 2),
            "median": float(np.median(words)),
            "p95": float(np.percentile(words, 95)),
            "longest": int(words.max()),
        },
    }
