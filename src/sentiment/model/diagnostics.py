"""Where the LSTM's gates saturate.

A sigmoid or tanh far from zero is flat: it hands on hardly any gradient, and its unit has stopped learning.
"""

import math
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sentiment.model.classifier import SentimentClassifier, layer_name
from sentiment.model.lstm import LSTMLayer
from sentiment.model.scoring import score
from sentiment.tokens.token_store import TokenizedReviews

GATES = ("input", "forget", "candidate", "output")
"""In the order in which torch stacks their weights; the candidate is what may enter the cell state."""

LIMITS = [math.atanh(0.95) if gate == "candidate" else math.log(0.95 / 0.05) for gate in GATES]
"""Distance from zero past which a sigmoid has left [0.05, 0.95], and the candidate's tanh [-0.95, 0.95]."""

REVIEWS = 128
"""With some 30,000 words among them, a share is known to a hundredth, in a hundredth of an epoch's time."""


def gate_saturation(
    model: SentimentClassifier, reviews: TokenizedReviews, description: str = "gates"
) -> dict[str, dict[str, float]]:
    """Return the share of saturated values by layer and gate, over the words of REVIEWS of the reviews.

    They stand evenly spaced in the split, since its labels may stand in order. Saturated is a gate below 0.05
    or above 0.95, and a candidate below -0.95 or above 0.95. Padding does not count.
    description: what the progress shown is called.
    """
    rows = np.flatnonzero(reviews.lengths)
    rows = rows[np.linspace(0, len(rows) - 1, min(REVIEWS, len(rows))).astype(int)]
    sample = TokenizedReviews.from_arrays(
        np.concatenate([reviews.ids[:0], *(reviews[row] for row in rows)]),
        reviews.lengths[rows],
        reviews.labels[rows],
    )
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LSTMLayer)}
    counts = {name: _Counts(len(layer.directions)) for name, layer in layers.items()}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(counts[name].add))
        score(model, sample, description)
    return {
        layer_name(f"{name}.directions.{index}"): dict(zip(GATES, shares, strict=True))
        for name, count in counts.items()
        for index, shares in enumerate(count.shares())
    }


def gate_inputs(lstm: nn.LSTM, inputs: Tensor, before: Tensor) -> Tensor:
    """Return what goes into the sigmoid or tanh of each gate, shape (words, gates, hidden units).

    The fused LSTM keeps them to itself; what it read and said is enough to compute them again.
    inputs: shape (words, input units). before: shape (words, hidden units), the state before each word.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.parameters()
    stacked = nn.functional.linear(inputs, weight_ih, bias_ih + bias_hh).addmm_(before, weight_hh.T)
    return stacked.view(-1, len(GATES), lstm.hidden_size)


def states_before(states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states before each word, read forwards and read backwards; zero before the first one.

    states: shape (reviews, words, units), after each word. lengths: shape (reviews,), words of each.
    """
    forwards = nn.functional.pad(states[:, :-1], (0, 0, 1, 0))
    backwards = nn.functional.pad(states[:, 1:], (0, 0, 0, 1))
    first = torch.arange(states.shape[1], device=states.device) == lengths[:, None] - 1
    return forwards, backwards.masked_fill(first[..., None], 0)


class _Counts:
    """Saturated values of each gate, and how many values each had; one per direction of a layer."""

    def __init__(self, directions: int) -> None:
        self.saturated = torch.zeros(directions, len(GATES), dtype=torch.int64)
        self.values = 0

    def shares(self) -> list[list[float]]:
        shares: list[list[float]] = (self.saturated.double() / max(1, self.values)).tolist()
        return shares

    def add(self, layer: nn.Module, arguments: tuple[Any, ...], states: Tensor) -> None:
        """Count the gate values of a forward pass: a forward hook of an LSTM layer."""
        inputs, lengths = arguments[0].transpose(0, 1), arguments[1]
        real = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        by_direction = states.transpose(0, 1).chunk(len(self.saturated), dim=2)
        for index, (lstm, own) in enumerate(
            zip(cast(LSTMLayer, layer).directions, by_direction, strict=True)
        ):
            before = states_before(own, lengths)[index]
            gates = gate_inputs(cast(nn.LSTM, lstm), inputs[real], before[real])
            over = gates.abs() > gates.new_tensor(LIMITS)[:, None]
            self.saturated[index] += over.sum(dim=(0, 2)).cpu()
        self.values += int(real.sum()) * own.shape[2]
