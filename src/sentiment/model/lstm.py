"""LSTM layers over padded sequences, with full or truncated backpropagation through time."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sentiment.model.dropout import BatchPart
from sentiment.params.model import ModelParams

State = tuple[Tensor, Tensor]
"""Hidden state and cell state, each of shape (1, sequences, hidden units)."""


class LSTMLayers(nn.ModuleList):
    """A stack of LSTM layers, each of which reads the hidden states of the layer below.

    A sequence is a chunk of a review, or a whole review.
    """

    def __init__(self, params: ModelParams) -> None:
        directions: Literal[1, 2] = 2 if params.bidirectional else 1
        output_units = params.hidden_units * directions
        super().__init__(
            LSTMLayer(output_units if depth else params.embedding_dim, params.hidden_units, directions)
            for depth in range(params.layers)
        )
        self.output_units = output_units
        self.dropout = params.dropout.layers
        self.bptt_length = params.chunk_tokens if params.carry_state else None
        self.chunk_tokens = None if params.carry_state else params.chunk_tokens

    def forward(self, inputs: Tensor, lengths: Tensor, part: BatchPart | None = None) -> Tensor:
        """Return the hidden states of the last layer, shape (tokens, sequences, output units).

        States past the end of a sequence are undefined.

        Args:
            inputs: embedded tokens, shape (tokens, sequences, embedding dimension).
            lengths: number of tokens in each sequence, at least 1, shape (sequences,).
            part: the larger batch that the sequences are a part of, for which dropout masks are drawn; None
                if they are a whole batch.
        """
        states = inputs
        for depth, layer in enumerate(self):
            if depth and self.training and part is not None:
                states = part.drop_states(states, self.dropout, self.chunk_tokens)
            elif depth:
                states = nn.functional.dropout(states, self.dropout, self.training)
            states = layer(states, lengths, self.bptt_length)
        return states


class LSTMLayer(nn.Module):
    """One unidirectional or bidirectional LSTM layer.

    The backward direction is a second unidirectional LSTM that reads each sequence reversed within its own
    length. `nn.LSTM(bidirectional=True)` would start in the padding, and is slower on a CPU.
    """

    def __init__(self, input_units: int, hidden_units: int, directions: Literal[1, 2]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(nn.LSTM(input_units, hidden_units) for _ in range(directions))

    def forward(self, inputs: Tensor, lengths: Tensor, bptt_length: int | None = None) -> Tensor:
        """Return the hidden states, shape (tokens, sequences, directions * hidden units).

        Args:
            inputs: inputs of the layer, shape (tokens, sequences, input units).
            lengths: number of tokens in each sequence, at least 1, shape (sequences,).
            bptt_length: number of tokens after which the state is detached from the graph (truncated BPTT);
                None backpropagates to the first token. Each direction counts tokens from the end at which it
                starts to read, so a state is always carried over from a full segment, never from padding.
        """
        forward = _compute_states(self.directions[0], inputs, lengths, bptt_length)
        if len(self.directions) == 1:
            return forward
        order = _compute_reversal(lengths, len(inputs))
        backward = _compute_states(self.directions[1], _reorder(inputs, order), lengths, bptt_length)
        return torch.cat([forward, _reorder(backward, order)], dim=2)


def _compute_states(lstm: nn.Module, inputs: Tensor, lengths: Tensor, bptt_length: int | None) -> Tensor:
    """Compute the states of one direction, segment by segment; sequences that have ended are skipped."""
    tokens, sequences, _ = inputs.shape
    if bptt_length is None or tokens <= bptt_length:
        return _run_segment(lstm, inputs, None)[0]
    rows = torch.arange(sequences, device=inputs.device)
    state: State | None = None
    segments = []
    for start in range(0, int(lengths.max()), bptt_length):
        if state is not None:
            unfinished = (lengths[rows] > start).nonzero().squeeze(1)
            rows = rows[unfinished]
            state = _select_detached(state, unfinished)
        segment = inputs[start : start + bptt_length].index_select(1, rows)
        states, state = _run_segment(lstm, segment, state)
        padded = states.new_zeros(len(segment), sequences, states.shape[2])
        segments.append(padded.index_copy(1, rows, states))
    joined = torch.cat(segments)
    return nn.functional.pad(joined, (0, 0, 0, 0, 0, tokens - len(joined)))


def _select_detached(state: State, rows: Tensor) -> State:
    """Return the state of some sequences, detached from the graph."""
    hidden, cell = state
    return hidden.detach().index_select(1, rows), cell.detach().index_select(1, rows)


def _run_segment(lstm: nn.Module, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return the states, shape (tokens, sequences, hidden units), and the state after the last token.

    The LSTM also reads the padding at the end, which changes no earlier state; batches have little of it. A
    packed sequence would be many times slower on a CPU; on a GPU, it would prevent cuDNN from using its
    persistent kernels, which exist for up to 128 units (torch's RNN.cpp, get_algo).
    """
    if inputs.is_cuda and inputs.dtype == torch.bfloat16:
        return run_in_input_dtype(cast(nn.LSTM, lstm), inputs, state)
    states, last_state = lstm(inputs, state)
    return states, last_state


def run_in_input_dtype(lstm: nn.LSTM, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Compute `lstm(inputs, state)` with the weights cast to the dtype of the inputs.

    Autocast on CUDA runs cuDNN's LSTM in fp16 even if bf16 is requested (AutocastRNN.cpp in torch's source
    names only that type), and small gradients underflow to zero. The cast weights are contiguous in memory,
    as cuDNN requires: otherwise torch would copy them at each call and warn.
    """
    parameters = list(lstm.parameters())
    flat = torch.cat([parameter.flatten() for parameter in parameters]).to(inputs.dtype)
    slices = torch.split(flat, [parameter.numel() for parameter in parameters])
    weights = [part.view_as(parameter) for part, parameter in zip(slices, parameters, strict=True)]
    if state is None:
        zero = inputs.new_zeros(1, inputs.shape[1], lstm.hidden_size)
        state = zero, zero
    with torch.autocast(inputs.device.type, enabled=False):
        states, hidden, cell = torch.lstm(
            inputs,
            state,
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=lstm.training,
            bidirectional=False,
            batch_first=False,
        )
    return states, (hidden, cell)


def _compute_reversal(lengths: Tensor, tokens: int) -> Tensor:
    """Return the permutation that reverses each sequence within its own length.

    The permutation is its own inverse.

    Returns:
        Indices into the flattened (tokens, sequences) dimensions, shape (tokens * sequences,).
    """
    # Padding stays at the end: negative positions wrap around.
    positions = (lengths - 1 - torch.arange(tokens, device=lengths.device)[:, None]) % tokens
    return (positions * len(lengths) + torch.arange(len(lengths), device=lengths.device)).flatten()


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    """Permute the tokens of an array of shape (tokens, sequences, units)."""
    reordered: Tensor = _Reorder.apply(values, order)  # type: ignore[no-untyped-call]
    return reordered


class _Reorder(Function):
    """Permutes rows, also in the backward pass.

    Autograd's gradient of `index_select` would add rows one by one, in case a row was selected twice.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return _select_rows(values, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return _select_rows(gradient, order), None


def _select_rows(values: Tensor, rows: Tensor) -> Tensor:
    return values.flatten(0, 1).index_select(0, rows).view_as(values)
