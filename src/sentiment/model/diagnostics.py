"""Saturation of the LSTM's gates.

A saturated sigmoid or tanh is flat: it passes hardly any gradient, so its unit stops learning.
"""

import math
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sentiment.model.classifier import SentimentClassifier, get_layer_name, predict_logits
from sentiment.model.lstm import LSTMLayer
from sentiment.tokens.token_store import TokenizedReviews

GATES = ("input", "forget", "candidate", "output")
"""Gates in the order in which torch stacks their weights; the candidate is the update of the cell state."""

THRESHOLDS = [math.atanh(0.95) if gate == "candidate" else math.log(0.95 / 0.05) for gate in GATES]
"""Absolute pre-activation above which each gate is saturated: the sigmoid is outside [0.05, 0.95], or the
candidate's tanh outside [-0.95, 0.95]."""

SAMPLE_SIZE = 128
"""Number of reviews that are measured. They have about 30,000 tokens, so a fraction is accurate to 0.01, and
the measurement takes 1% of the time of an epoch."""


def measure_gate_saturation(
    model: SentimentClassifier, reviews: TokenizedReviews, description: str = "gates"
) -> dict[str, dict[str, float]]:
    """Measure the fraction of saturated values of each gate over the tokens of a sample of reviews.

    A gate is saturated below 0.05 or above 0.95; the candidate below -0.95 or above 0.95. Padding does not
    count. The sample is evenly spaced over the split, since reviews may be sorted by label.

    Args:
        model: model to measure.
        reviews: split from which SAMPLE_SIZE reviews are sampled.
        description: label of the progress bar.

    Returns:
        Fraction of saturated values, 0 to 1, keyed by layer (such as `lstm_1_forward`) and gate.
    """
    rows = np.flatnonzero(reviews.lengths)
    rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLE_SIZE, len(rows))).astype(int)]
    sample = TokenizedReviews.from_arrays(
        np.concatenate([reviews.ids[:0], *(reviews[row] for row in rows)]),
        reviews.lengths[rows],
        reviews.labels[rows],
    )
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LSTMLayer)}
    counters = {name: _SaturationCounter(len(layer.directions)) for name, layer in layers.items()}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(counters[name].count))
        predict_logits(model, sample, description)
    return {
        get_layer_name(f"{name}.directions.{index}"): dict(zip(GATES, fractions, strict=True))
        for name, counter in counters.items()
        for index, fractions in enumerate(counter.compute_fractions())
    }


def compute_gate_preactivations(lstm: nn.LSTM, inputs: Tensor, previous_states: Tensor) -> Tensor:
    """Recompute the pre-activations of the gates, which the fused LSTM kernel does not return.

    Args:
        lstm: an LSTM with one layer and one direction.
        inputs: inputs of the LSTM, shape (tokens, input units).
        previous_states: hidden state before each token, shape (tokens, hidden units).

    Returns:
        Inputs of each gate's sigmoid or tanh, shape (tokens, gates, hidden units).
    """
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.parameters()
    stacked = nn.functional.linear(inputs, weight_ih, bias_ih + bias_hh).addmm_(previous_states, weight_hh.T)
    return stacked.view(-1, len(GATES), lstm.hidden_size)


def shift_states(states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden state before each token, in the forward and in the backward direction.

    The state before the first token that a direction reads is zero.

    Args:
        states: hidden state after each token, shape (sequences, tokens, units).
        lengths: number of tokens in each sequence, shape (sequences,).
    """
    forward = nn.functional.pad(states[:, :-1], (0, 0, 1, 0))
    backward = nn.functional.pad(states[:, 1:], (0, 0, 0, 1))
    is_last_token = torch.arange(states.shape[1], device=states.device) == lengths[:, None] - 1
    return forward, backward.masked_fill(is_last_token[..., None], 0)


class _SaturationCounter:
    """Counts the saturated values of each gate and direction of one layer."""

    def __init__(self, directions: int) -> None:
        self.saturated = torch.zeros(directions, len(GATES), dtype=torch.int64)
        self.total = 0

    def compute_fractions(self) -> list[list[float]]:
        """Return the fraction of saturated values, one list per direction and one value per gate."""
        fractions: list[list[float]] = (self.saturated.double() / max(1, self.total)).tolist()
        return fractions

    def count(self, layer: nn.Module, arguments: tuple[Any, ...], states: Tensor) -> None:
        """Count the gate values of a forward pass; registered as a forward hook of `LSTMLayer`."""
        inputs, lengths = arguments[0].transpose(0, 1), arguments[1]
        is_token = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        direction_states = states.transpose(0, 1).chunk(len(self.saturated), dim=2)
        for index, (lstm, outputs) in enumerate(
            zip(cast(LSTMLayer, layer).directions, direction_states, strict=True)
        ):
            previous_states = shift_states(outputs, lengths)[index]
            preactivations = compute_gate_preactivations(
                cast(nn.LSTM, lstm), inputs[is_token], previous_states[is_token]
            )
            is_saturated = preactivations.abs() > preactivations.new_tensor(THRESHOLDS)[:, None]
            self.saturated[index] += is_saturated.sum(dim=(0, 2)).cpu()
        self.total += int(is_token.sum()) * outputs.shape[2]
