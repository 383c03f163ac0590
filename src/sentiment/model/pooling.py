"""Splitting of reviews into chunks, and pooling of hidden states into one vector per review."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sentiment.tokens.vocabulary import PADDING_ID


@dataclass(frozen=True)
class Chunks:
    """A batch of reviews split into chunks, and the mapping between reviews and chunks.

    Tensors with one entry per token have shape (tokens, chunks, ...), with the time dimension first: in each
    time step, an LSTM reads one token of every chunk, and these are contiguous in memory.
    """

    max_length: int
    """Number of tokens in the longest chunk: the size of the time dimension."""
    lengths: Tensor
    """Number of tokens in each chunk, at least 1, shape (chunks,). The chunks of a review are consecutive."""
    starts: Tensor
    """Position of each chunk's first token in its review, shape (chunks,)."""
    num_reviews: int
    max_chunks: int
    """Number of chunks of the review with the most chunks."""
    cells: Tensor
    """Index of each chunk in a flattened (num_reviews, max_chunks) grid, shape (chunks,)."""

    @classmethod
    def split(cls, lengths: Tensor, chunk_tokens: int | None) -> Self:
        """Split each review into the fewest chunks of about equal length.

        Chunks of equal length need less padding: no chunk is a short remainder, and a batch of reviews of
        similar length has chunks of similar length.

        Args:
            lengths: number of tokens in each review, at least 1, shape (reviews,).
            chunk_tokens: maximum number of tokens in a chunk; None makes one chunk of each review.
        """
        counts = torch.ones_like(lengths) if chunk_tokens is None else _ceil_div(lengths, chunk_tokens)
        sizes = _ceil_div(lengths, counts)
        max_chunks = int(counts.max())
        starts = sizes[:, None] * torch.arange(max_chunks, device=lengths.device)
        remaining = torch.minimum(lengths[:, None] - starts, sizes[:, None]).flatten()
        cells = (remaining > 0).nonzero().squeeze(1)
        return cls(
            int(sizes.max()), remaining[cells], starts.flatten()[cells], len(lengths), max_chunks, cells
        )

    def to(self, device: torch.device) -> Self:
        """Return a copy with its tensors on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("lengths", "starts", "cells")}
        return replace(self, **tensors)

    def gather_tokens(self, ids: Tensor) -> Tensor:
        """Return the token ids of the chunks, shape (max_length, chunks), padded at the end.

        Args:
            ids: token ids of the reviews, shape (reviews, tokens of the longest review).
        """
        positions = self.starts + torch.arange(self.max_length, device=ids.device)[:, None]
        rows = self.expand_to_chunks(torch.arange(len(ids), device=ids.device))
        gathered = ids[rows, positions.clamp(max=ids.shape[1] - 1)]
        return gathered.masked_fill(self.padding_mask, PADDING_ID)

    def expand_to_chunks(self, values: Tensor) -> Tensor:
        """Repeat values of reviews, shape (reviews, ...), for each of their chunks: shape (chunks, ...)."""
        return values.index_select(0, self.cells.div(self.max_chunks, rounding_mode="floor"))

    def group_by_review(self, values: Tensor, fill_value: float) -> Tensor:
        """Group values of chunks by review: shape (reviews, max_chunks, ...).

        Args:
            values: values of the chunks, shape (chunks, ...).
            fill_value: value of the empty cells of a review that has fewer than `max_chunks` chunks.
        """
        grid = values.new_full((self.num_reviews * self.max_chunks, *values.shape[1:]), fill_value)
        return grid.index_copy(0, self.cells, values).view(
            self.num_reviews, self.max_chunks, *values.shape[1:]
        )

    def ungroup(self, grid: Tensor) -> Tensor:
        """Invert `group_by_review`: return the values of the chunks, shape (chunks, ...)."""
        return grid.flatten(0, 1).index_select(0, self.cells)

    @property
    def padding_mask(self) -> Tensor:
        """True at positions past the end of a chunk, shape (max_length, chunks)."""
        return torch.arange(self.max_length, device=self.lengths.device)[:, None] >= self.lengths

    @property
    def first_and_last_indices(self) -> tuple[Tensor, Tensor]:
        """Indices of the first and the last chunk of each review, both of shape (reviews,)."""
        last = self.group_by_review(torch.ones_like(self.cells), 0).sum(dim=1).cumsum(dim=0) - 1
        return torch.cat([last.new_zeros(1), last[:-1] + 1]), last


def _ceil_div(dividend: Tensor, divisor: Tensor | int) -> Tensor:
    """Divide integers, rounding up."""
    return (dividend + divisor - 1).div(divisor, rounding_mode="floor")


NEGATIVE_INFINITY = float("-inf")


class Pooling(nn.Module):
    """Reduces the hidden states of a review to one vector: the last state, mean, maximum or attention.

    Args:
        kind: `model.pooling` of params.yaml.
        units: size of the hidden state of a token.
        forward_units: number of leading units that belong to the forward direction; the remaining units, if
            any, belong to the backward direction.
    """

    def __init__(
        self, kind: Literal["last", "mean", "max", "attention"], units: int, forward_units: int
    ) -> None:
        super().__init__()
        self.kind = kind
        self.forward_units = forward_units
        self.attention = Attention(units) if kind == "attention" else None

    def forward(self, states: Tensor, chunks: Chunks) -> Tensor:
        """Pool hidden states into one vector per review, shape (reviews, units).

        Args:
            states: hidden states, shape (tokens, chunks, units).
            chunks: chunks that the states belong to.
        """
        if self.attention is not None:
            pooled: Tensor = self.attention(states, chunks)
            return pooled
        if self.kind == "last":
            first, last = chunks.first_and_last_indices
            forward_states = states[chunks.lengths[last] - 1, last, : self.forward_units]
            return torch.cat([forward_states, states[0, first, self.forward_units :]], dim=1)
        if self.kind == "max":
            maxima = _masked_max(states, chunks.padding_mask)
            return chunks.group_by_review(maxima, NEGATIVE_INFINITY).amax(dim=1)
        token_counts = chunks.group_by_review(chunks.lengths, 0).sum(dim=1)
        masked = states.masked_fill(chunks.padding_mask[..., None], 0)
        return chunks.group_by_review(masked.sum(dim=0), 0).sum(dim=1) / token_counts[:, None]


def _masked_max(states: Tensor, padding_mask: Tensor) -> Tensor:
    """Return the maximum over the tokens that are not padding, shape (chunks, units)."""
    maxima: Tensor = _MaskedMax.apply(states, padding_mask)  # type: ignore[no-untyped-call]
    return maxima


class _MaskedMax(Function):
    """`masked_fill` followed by `amax`: bitwise the same gradient, in a third of the time.

    If several tokens have the maximum value, its gradient is divided evenly among them. Autograd is slower
    since it counts these tokens in 64-bit integers, one by one.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, padding_mask: Tensor) -> Tensor:
        if states.device.type == "cpu":
            padding = padding_mask.flatten().nonzero().squeeze(1)
            masked = states.flatten(0, 1).index_fill(0, padding, NEGATIVE_INFINITY).view_as(states)
        else:  # `nonzero` would synchronize with the GPU
            masked = states.masked_fill(padding_mask[..., None], NEGATIVE_INFINITY)
        maxima = masked.amax(dim=0)
        ctx.save_for_backward(masked, maxima)
        return maxima

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        masked, maxima = ctx.saved_tensors
        is_maximum = masked == maxima
        gradient_share = gradient / is_maximum.view(torch.uint8).sum(dim=0, dtype=torch.int32)
        return torch.where(is_maximum, gradient_share, gradient_share.new_zeros(())), None


class Attention(nn.Module):
    """Additive self-attention: the weighted mean of a review's hidden states, with learned weights.

    score_t = v . tanh(W h_t + b); the weights are the softmax of the scores over the tokens of the review.
    Source: Yang et al. 2016, where v is the context vector; Lin et al. 2017 with one hop and no penalty.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(units, units)
        self.context = nn.Linear(units, 1, bias=False)

    def forward(self, states: Tensor, chunks: Chunks) -> Tensor:
        """Pool hidden states into one vector per review, shape (reviews, units).

        Args:
            states: hidden states, shape (tokens, chunks, units).
            chunks: chunks that the states belong to.
        """
        weights = self.compute_weights(states, chunks)
        return chunks.group_by_review((weights[..., None] * states).sum(dim=0), 0).sum(dim=1)

    def compute_weights(self, states: Tensor, chunks: Chunks) -> Tensor:
        """Return the attention weights, shape (tokens, chunks), float32.

        The weights are 0 for padding and sum to 1 over the tokens of a review.
        """
        scores: Tensor = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        masked = scores.float().masked_fill(chunks.padding_mask, NEGATIVE_INFINITY)
        by_review = chunks.group_by_review(masked.t(), NEGATIVE_INFINITY)
        weights = by_review.flatten(1).softmax(dim=1).view_as(by_review)
        return chunks.ungroup(weights).t()
