"""Dropout whose masks do not depend on the number of ranks that train a model together."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sentiment.model.pooling import Chunks


@dataclass(frozen=True)
class BatchPart:
    """Consecutive reviews of a batch, of which other ranks compute the others (data parallelism).

    Masks are drawn for the whole batch, and each rank takes the part of its reviews. Ranks with equal random
    states therefore drop what a single process would drop that computes the whole batch.
    """

    lengths: Tensor
    """Number of tokens in each review of the whole batch, on the CPU, shape (reviews of the whole batch,)."""
    start: int
    """Position of the first review of the part in the whole batch."""

    @property
    def tokens(self) -> int:
        """Number of tokens to which the whole batch is padded."""
        return max(1, int(self.lengths.max()))

    def drop_pooled(self, pooled: Tensor, probability: float) -> Tensor:
        """Apply dropout to the vectors of the reviews, shape (reviews, units)."""
        if not probability:
            return pooled
        mask = _draw_mask(pooled, (len(self.lengths), pooled.shape[1]), probability)
        return pooled * mask[self.start : self.start + len(pooled)]

    def drop_states(self, states: Tensor, probability: float, chunk_tokens: int | None) -> Tensor:
        """Apply dropout to hidden states, shape (tokens, chunks, units).

        Args:
            states: hidden states of the part's chunks.
            probability: probability with which a value becomes zero.
            chunk_tokens: maximum number of tokens in a chunk, see `Chunks.split`.
        """
        if not probability:
            return states
        whole = Chunks.split(self.lengths.clamp(min=1), chunk_tokens)
        start = int((whole.cells < self.start * whole.max_chunks).sum())
        mask = _draw_mask(states, (whole.max_length, len(whole.lengths), states.shape[2]), probability)
        return states * mask[: len(states), start : start + states.shape[1]]


def draw_per_token(ids: Tensor, part: BatchPart | None) -> Tensor:
    """Draw a number in [0, 1) for each token of the reviews, shape (reviews, tokens)."""
    if part is None:
        return torch.rand(ids.shape, device=ids.device)
    drawn = torch.rand(len(part.lengths), part.tokens, device=ids.device)
    return drawn[part.start : part.start + len(ids), : ids.shape[1]]


def draw_per_channel(ids: Tensor, channels: int, part: BatchPart | None) -> Tensor:
    """Draw a number in [0, 1) for each embedding channel of the reviews, shape (reviews, channels)."""
    if part is None:
        return torch.rand(len(ids), channels, device=ids.device)
    drawn = torch.rand(len(part.lengths), channels, device=ids.device)
    return drawn[part.start : part.start + len(ids)]


def _draw_mask(values: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Return the mask by which `dropout` would multiply an array of this shape, in the dtype of `values`."""
    return nn.functional.dropout(values.new_ones(shape), probability)
