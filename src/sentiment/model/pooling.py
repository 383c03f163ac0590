"""From the states of a review's words to one vector per review; padding is never read."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sentiment.model.pieces import Pieces

LOWEST = float("-inf")


class Pooling(nn.Module):
    """Reduce states by the last one, their mean, their maximum, or attention.

    kind: as `model.pooling` in params.yaml. units: of a word's state. forward_units: how many of them come
    first and belong to the forward direction; the others, where there are any, to the backward one.
    """

    def __init__(
        self, kind: Literal["last", "mean", "max", "attention"], units: int, forward_units: int
    ) -> None:
        super().__init__()
        self.kind = kind
        self.forward_units = forward_units
        self.attention = Attention(units) if kind == "attention" else None

    def forward(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return shape (reviews, units); states: shape (words, pieces, units)."""
        if self.attention is not None:
            pooled: Tensor = self.attention(states, pieces)
            return pooled
        if self.kind == "last":
            first, last = pieces.ends
            forward = states[pieces.lengths[last] - 1, last, : self.forward_units]
            return torch.cat([forward, states[0, first, self.forward_units :]], dim=1)
        if self.kind == "max":
            return pieces.table(_largest(states, pieces.padding), LOWEST).amax(dim=1)
        words = pieces.table(pieces.lengths, 0).sum(dim=1)
        read = states.masked_fill(pieces.padding[..., None], 0)
        return pieces.table(read.sum(dim=0), 0).sum(dim=1) / words[:, None]


def _largest(states: Tensor, padding: Tensor) -> Tensor:
    """Return the maximum over the words, shape (pieces, units), without those that are padding."""
    largest: Tensor = _Largest.apply(states, padding)  # type: ignore[no-untyped-call]
    return largest


class _Largest(Function):
    """What `masked_fill` and `amax` do, and their gradient, bit for bit, in a third of the time.

    Words with the same state share its gradient evenly. Autograd counts them in 64-bit integers, one by one.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, padding: Tensor) -> Tensor:
        if states.device.type == "cpu":
            behind = padding.flatten().nonzero().squeeze(1)
            read = states.flatten(0, 1).index_fill(0, behind, LOWEST).view_as(states)
        else:  # the positions of padding would have to be waited for
            read = states.masked_fill(padding[..., None], LOWEST)
        largest = read.amax(dim=0)
        ctx.save_for_backward(read, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        read, largest = ctx.saved_tensors
        chosen = read == largest
        share = gradient / chosen.view(torch.uint8).sum(dim=0, dtype=torch.int32)
        return torch.where(chosen, share, share.new_zeros(())), None


class Attention(nn.Module):
    """The mean of a review's states, each weighted by how much it tells (additive self-attention).

    score_t = v . tanh(W h_t + b), weights = softmax of the scores over the review's words.
    Source: Yang et al. 2016, whose v is the context vector; Lin et al. 2017 with one hop and no penalty.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(units, units)
        self.context = nn.Linear(units, 1, bias=False)

    def forward(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return shape (reviews, units)."""
        weights = self.weights(states, pieces)
        return pieces.table((weights[..., None] * states).sum(dim=0), 0).sum(dim=1)

    def weights(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return each word's share, shape (words, pieces), float32: 0 for padding, 1 over a review."""
        scores: Tensor = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        by_review = pieces.table(scores.float().masked_fill(pieces.padding, LOWEST).t(), LOWEST)
        shares = by_review.flatten(1).softmax(dim=1).view_as(by_review)
        return pieces.untable(shares).t()
