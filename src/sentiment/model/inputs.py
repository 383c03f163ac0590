"""A batch as the classifier takes it."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentiment.tokens.batches import Batch


class Inputs(NamedTuple):
    """What `SentimentClassifier.forward` takes, in its order; the lengths stay on the CPU."""

    ids: Tensor
    lengths: Tensor
    ngrams: tuple[Tensor, Tensor] | None


def inputs_of(batch: Batch, device: torch.device) -> Inputs:
    """Return a batch's arrays as tensors on a device; on the CPU in the same memory."""
    ngrams = None
    if batch.ngrams is not None:
        ngrams = _tensor(batch.ngrams.indices, device), _tensor(batch.ngrams.offsets, device)
    return Inputs(_tensor(batch.ids, device), torch.from_numpy(batch.lengths), ngrams)


def _tensor(array: NDArray[np.int32 | np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
