"""From the states of a review's words to one vector per review; padding is never read."""

from typing import Literal

import torch
from torch import Tensor, nn


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

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Return shape (reviews, units).

        states: shape (reviews, words, units). lengths: shape (reviews,), words of each, at least 1.
        """
        if self.kind == "last":
            rows = torch.arange(len(states), device=states.device)
            last = states[rows, lengths - 1, : self.forward_units]
            return torch.cat([last, states[:, 0, self.forward_units :]], dim=1)
        padding = torch.arange(states.shape[1], device=lengths.device) >= lengths[:, None]
        if self.attention is not None:
            pooled: Tensor = self.attention(states, padding)
            return pooled
        if self.kind == "max":
            return states.masked_fill(padding[..., None], float("-inf")).amax(dim=1)
        return states.masked_fill(padding[..., None], 0).sum(dim=1) / lengths[:, None]


class Attention(nn.Module):
    """The mean of a review's states, each weighted by how much it tells (additive self-attention).

    score_t = v . tanh(W h_t + b), weights = softmax of the scores over the review's words.
    Source: Yang et al. 2016, whose v is the context vector; Lin et al. 2017 with one hop and no penalty.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(units, units)
        self.context = nn.Linear(units, 1, bias=False)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """Return shape (reviews, units); padding: shape (reviews, words), true behind a review's end."""
        weights = self.weights(states, padding)
        return (weights[..., None] * states).sum(dim=1)

    def weights(self, states: Tensor, padding: Tensor) -> Tensor:
        """Return each word's share, shape (reviews, words), float32: 0 for padding, 1 over a review."""
        scores: Tensor = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        return scores.float().masked_fill(padding, float("-inf")).softmax(dim=1)
