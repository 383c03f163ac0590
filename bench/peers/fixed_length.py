"""Reviews in the format of the Keras examples: one array, with every row padded to `max_tokens`."""

import numpy as np
from numpy.typing import NDArray

from sentiment.tokens.batches import Truncation
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID


def fixed_length(reviews: TokenizedReviews, truncation: Truncation) -> NDArray[np.int32]:
    """Return token ids, shape (reviews, max_tokens), padded in front like `keras.utils.pad_sequences`."""
    rows = np.full((len(reviews), truncation.max_tokens), PADDING_ID, dtype=np.int32)
    for number, row in enumerate(rows):
        truncated = truncation(reviews[number])
        row[len(row) - len(truncated) :] = truncated
    return rows
