"""Reviews in the format of the Keras examples: one array, every row as long as the longest review read."""

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.batches import Cut
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID


def fixed_length(reviews: TokenizedReviews, cut: Cut) -> NDArray[np.int32]:
    """Return ids, shape (reviews, cut.max_tokens), padded in front as `keras.utils.pad_sequences` does."""
    rows = np.full((len(reviews), cut.max_tokens), PADDING_ID, dtype=np.int32)
    for number, row in enumerate(rows):
        kept = cut(reviews[number])
        row[len(row) - len(kept) :] = kept
    return rows
