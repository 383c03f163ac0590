"""LSTM layers over padded reviews: in one go, in chunks read apart, or in chunks with the state handed on."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.params.model import ModelParams

State = tuple[Tensor, Tensor]
"""Hidden and cell state after a word, each of shape (1, reviews, hidden units)."""


class LSTMLayers(nn.ModuleList):
    """One or more layers, each reading the states of the one below."""

    def __init__(self, params: ModelParams) -> None:
        directions: Literal[1, 2] = 2 if params.bidirectional else 1
        units = params.hidden_units * directions
        super().__init__(
            LSTMLayer(units if depth else params.embedding_units, params.hidden_units, directions)
            for depth in range(params.layers)
        )
        self.units = units
        self.dropout = params.dropout.layers
        self.chunk_tokens = params.chunk_tokens
        self.carry_state = params.carry_state

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the last layer's states, shape (reviews, words, units); behind a review's end, anything.

        inputs: shape (reviews, words, embedding units). lengths: shape (reviews,), words of each, at least 1.
        """
        if self.chunk_tokens is None or self.carry_state:
            return self._read(inputs, lengths, self.chunk_tokens)
        return self._read_apart(inputs, lengths, self.chunk_tokens)

    def _read(self, inputs: Tensor, lengths: Tensor, carry_every: int | None) -> Tensor:
        states = inputs
        for depth, layer in enumerate(self):
            if depth:
                states = nn.functional.dropout(states, self.dropout, self.training)
            states = layer(states, lengths, carry_every)
        return states

    def _read_apart(self, inputs: Tensor, lengths: Tensor, chunk: int) -> Tensor:
        """Like `_read`, each chunk of `chunk` words from a zero state; chunks of padding are not read."""
        reviews, words, units = inputs.shape
        count = -(-words // chunk)
        chunks = nn.functional.pad(inputs, (0, 0, 0, count * chunk - words)).view(
            reviews * count, chunk, units
        )
        starts = torch.arange(0, count * chunk, chunk, device=inputs.device)
        chunk_lengths = (lengths[:, None] - starts).clamp(0, chunk).flatten()
        alive = chunk_lengths.nonzero().squeeze(1)
        states = self._read(chunks.index_select(0, alive), chunk_lengths[alive], None)
        whole = states.new_zeros(reviews * count, chunk, states.shape[2]).index_copy(0, alive, states)
        return whole.view(reviews, count * chunk, -1)[:, :words]


class LSTMLayer(nn.Module):
    """One layer of `torch.nn.LSTM`, forwards and, where asked for, backwards.

    The backward direction is a second one-way LSTM over each review mirrored inside its own length. The
    library's `bidirectional=True` would start in the padding, and is slower on a CPU.
    """

    def __init__(self, input_units: int, hidden_units: int, directions: Literal[1, 2]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(
            nn.LSTM(input_units, hidden_units, batch_first=True) for _ in range(directions)
        )

    def forward(self, inputs: Tensor, lengths: Tensor, carry_every: int | None = None) -> Tensor:
        """Return states, shape (reviews, words, directions * hidden units).

        carry_every: words after which the state is handed on without its gradient (truncated BPTT); None:
        the gradient reaches back to the first word. Each direction counts from where it starts to read, so
        that a state is handed on after full chunks alone: behind a review's last word it would be lost.
        """
        forward = _states(self.directions[0], inputs, lengths, carry_every)
        if len(self.directions) == 1:
            return forward
        mirror = _mirror(lengths, inputs.shape[1])
        backward = _states(self.directions[1], _taken(inputs, mirror), lengths, carry_every)
        return torch.cat([forward, _taken(backward, mirror)], dim=2)


def _states(lstm: nn.Module, inputs: Tensor, lengths: Tensor, carry_every: int | None) -> Tensor:
    """Read in one direction, chunk after chunk; a review that has ended is not in the next chunk's batch."""
    reviews, words, _ = inputs.shape
    packed = inputs.is_cuda
    if carry_every is None or words <= carry_every:
        return _run(lstm, inputs, lengths, None, packed)[0]
    rows = torch.arange(reviews, device=inputs.device)
    state: State | None = None
    chunks = []
    for start in range(0, int(lengths.max()), carry_every):
        if state is not None:
            going_on = (lengths[rows] > start).nonzero().squeeze(1)
            rows = rows[going_on]
            state = _handed_on(state, going_on)
        chunk = inputs[:, start : start + carry_every].index_select(0, rows)
        chunk_lengths = (lengths[rows] - start).clamp(max=carry_every)
        states, state = _run(lstm, chunk, chunk_lengths, state, packed)
        chunks.append(states.new_zeros(reviews, *states.shape[1:]).index_copy(0, rows, states))
    read = torch.cat(chunks, dim=1)
    return nn.functional.pad(read, (0, 0, 0, words - read.shape[1]))


def _handed_on(state: State, rows: Tensor) -> State:
    hidden, cell = state
    return hidden.detach().index_select(1, rows), cell.detach().index_select(1, rows)


def _run(
    lstm: nn.Module, inputs: Tensor, lengths: Tensor, state: State | None, packed: bool
) -> tuple[Tensor, State]:
    """Return states, shape (reviews, words, hidden units), and the last one of each review of full length.

    packed: leave padding out, as cuDNN does best; on a CPU that path is many times slower than reading
    the padding, which changes nothing in front of it.
    """
    if not packed:
        states, last = lstm(inputs, state)
        return states, last
    sequence = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, last = lstm(sequence, state)
    return pad_packed_sequence(states, batch_first=True, total_length=inputs.shape[1])[0], last


def _mirror(lengths: Tensor, words: int) -> Tensor:
    """Return shape (reviews, words), the position that takes each one's place when read backwards."""
    positions = lengths[:, None] - 1 - torch.arange(words, device=lengths.device)
    return positions % words  # padding stays behind the review: negative positions wrap to the end


def _taken(values: Tensor, positions: Tensor) -> Tensor:
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[2]))
