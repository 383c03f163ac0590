"""A batch as the classifier takes it."""

from typing import NamedTuple

import torch
from torch import Tensor

from sentiment.tokens.batches import Batch


class Inputs(NamedTuple):
    """What `SentimentClassifier.forward` takes, in its order."""

    ids: Tensor
    lengths: Tensor
    ngrams: tuple[Tensor, Tensor] | None


def inputs_of(batch: Batch) -> Inputs:
    """Return a batch's arrays as tensors, in the same memory."""
    ids, lengths = torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)
    if batch.ngrams is None:
        return Inputs(ids, lengths, None)
    ngrams = torch.from_numpy(batch.ngrams.indices), torch.from_numpy(batch.ngrams.offsets)
    return Inputs(ids, lengths, ngrams)
