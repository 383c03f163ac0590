"""Fingerprints of the texts that a training of this working tree reads, which a model keeps."""

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.parquet import stream_reviews


def fingerprint_seen_texts() -> NDArray[np.uint64]:
    """Return the sorted fingerprints of all texts that train and tune read, shape (texts,)."""
    fingerprints = [
        compute_fingerprints(batch["text"].to_pylist())
        for split in paths.LEARNED_SPLITS
        for batch in stream_reviews(paths.reviews(split), labelled=split != "unlabelled")
    ]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *fingerprints]))
