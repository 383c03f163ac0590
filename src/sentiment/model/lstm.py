"""LSTM layers over padded pieces of reviews: each in one go, or in chunks with the state handed on."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sentiment.params.model import ModelParams
from sentiment.tokens.vocabulary import PADDING_ID


@dataclass(frozen=True)
class Pieces:
    """Which piece is where.

    Tensors over the words of all pieces have shape (words, pieces, ...), words first: an LSTM reads every
    piece's first word, then every second one, and finds them side by side in memory.

    words: of the longest piece. lengths: shape (pieces,), words of each, at least 1. starts: shape (pieces,),
    where each begins in its review. The pieces of a review follow each other. reviews, columns: how many
    there are, and how many pieces one may have. cells: shape (pieces,), where each piece stands in a table of
    (reviews, columns), row after row.
    """

    words: int
    lengths: Tensor
    starts: Tensor
    reviews: int
    columns: int
    cells: Tensor

    @classmethod
    def cut(cls, lengths: Tensor, longest: int | None) -> Self:
        """Cut each review into as few pieces as it takes, about equally long; in one where `longest` is None.

        Equally, so that batches of reviews of like length have pieces of like length, and no piece is a mere
        rest. lengths: shape (reviews,), words of each, at least 1. longest: most words of a piece.
        """
        counts = torch.ones_like(lengths) if longest is None else _divided(lengths, longest)
        sizes = _divided(lengths, counts)
        columns = int(counts.max())
        starts = sizes[:, None] * torch.arange(columns, device=lengths.device)
        left = torch.minimum(lengths[:, None] - starts, sizes[:, None]).flatten()
        cells = (left > 0).nonzero().squeeze(1)
        return cls(int(sizes.max()), left[cells], starts.flatten()[cells], len(lengths), columns, cells)

    def to(self, device: torch.device) -> Self:
        """Return the same with its tensors on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("lengths", "starts", "cells")}
        return replace(self, **tensors)

    def take(self, ids: Tensor) -> Tensor:
        """Return the words of the pieces, shape (words, pieces), padded at the end.

        ids: shape (reviews, words of the longest).
        """
        positions = self.starts + torch.arange(self.words, device=ids.device)[:, None]
        rows = self.of_reviews(torch.arange(len(ids), device=ids.device))
        taken = ids[rows, positions.clamp(max=ids.shape[1] - 1)]
        return taken.masked_fill(self.padding, PADDING_ID)

    def of_reviews(self, values: Tensor) -> Tensor:
        """Return for each piece its review's values; values: shape (reviews, ...)."""
        return values.index_select(0, self.cells.div(self.columns, rounding_mode="floor"))

    def table(self, values: Tensor, nothing: float) -> Tensor:
        """Return values of pieces by review, shape (reviews, columns, ...), `nothing` where none is.

        values: shape (pieces, ...).
        """
        table = values.new_full((self.reviews * self.columns, *values.shape[1:]), nothing)
        return table.index_copy(0, self.cells, values).view(self.reviews, self.columns, *values.shape[1:])

    def untable(self, table: Tensor) -> Tensor:
        """Return what `table` was made of."""
        return table.flatten(0, 1).index_select(0, self.cells)

    @property
    def padding(self) -> Tensor:
        """Which words are behind a piece's end, shape (words, pieces)."""
        return torch.arange(self.words, device=self.lengths.device)[:, None] >= self.lengths

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The first and the last piece of each review, both of shape (reviews,)."""
        last = self.table(torch.ones_like(self.cells), 0).sum(dim=1).cumsum(dim=0) - 1
        return torch.cat([last.new_zeros(1), last[:-1] + 1]), last


def _divided(dividend: Tensor, divisor: Tensor | int) -> Tensor:
    """Divide whole numbers, rounding up."""
    return (dividend + divisor - 1).div(divisor, rounding_mode="floor")


State = tuple[Tensor, Tensor]
"""Hidden and cell state after a word, each of shape (1, pieces, hidden units)."""


class LSTMLayers(nn.ModuleList):
    """One or more layers, each reading the states of the one below."""

    def __init__(self, params: ModelParams) -> None:
        directions: Literal[1, 2] = 2 if params.bidirectional else 1
        units = params.hidden_units * directions
        super().__init__(
            LSTMLayer(units if depth else params.embedding_dim, params.hidden_units, directions)
            for depth in range(params.layers)
        )
        self.units = units
        self.dropout = params.dropout.layers
        self.carry_every = params.chunk_tokens if params.carry_state else None

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the last layer's states, shape (words, pieces, units); behind a piece's end, anything.

        inputs: shape (words, pieces, embedding units). lengths: shape (pieces,), words of each, at least 1.
        """
        states = inputs
        for depth, layer in enumerate(self):
            if depth:
                states = nn.functional.dropout(states, self.dropout, self.training)
            states = layer(states, lengths, self.carry_every)
        return states


class LSTMLayer(nn.Module):
    """One layer of `torch.nn.LSTM`, forwards and, where asked for, backwards.

    The backward direction is a second one-way LSTM over each piece mirrored inside its own length. The
    library's `bidirectional=True` would start in the padding, and is slower on a CPU.
    """

    def __init__(self, input_units: int, hidden_units: int, directions: Literal[1, 2]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(nn.LSTM(input_units, hidden_units) for _ in range(directions))

    def forward(self, inputs: Tensor, lengths: Tensor, carry_every: int | None = None) -> Tensor:
        """Return states, shape (words, pieces, directions * hidden units).

        carry_every: words after which the state is handed on without its gradient (truncated BPTT); None:
        the gradient reaches back to the first word. Each direction counts from where it starts to read, so
        that a state is handed on after full chunks alone: behind a piece's last word it would be lost.
        """
        forward = _states(self.directions[0], inputs, lengths, carry_every)
        if len(self.directions) == 1:
            return forward
        mirror = _mirror(lengths, len(inputs))
        backward = _states(self.directions[1], _mirrored(inputs, mirror), lengths, carry_every)
        return torch.cat([forward, _mirrored(backward, mirror)], dim=2)


def _states(lstm: nn.Module, inputs: Tensor, lengths: Tensor, carry_every: int | None) -> Tensor:
    """Read in one direction, chunk after chunk; a piece that has ended is not in the next chunk's batch."""
    words, pieces, _ = inputs.shape
    if carry_every is None or words <= carry_every:
        return _run(lstm, inputs, None)[0]
    rows = torch.arange(pieces, device=inputs.device)
    state: State | None = None
    chunks = []
    for start in range(0, int(lengths.max()), carry_every):
        if state is not None:
            going_on = (lengths[rows] > start).nonzero().squeeze(1)
            rows = rows[going_on]
            state = _handed_on(state, going_on)
        chunk = inputs[start : start + carry_every].index_select(1, rows)
        states, state = _run(lstm, chunk, state)
        chunks.append(states.new_zeros(len(chunk), pieces, states.shape[2]).index_copy(1, rows, states))
    read = torch.cat(chunks)
    return nn.functional.pad(read, (0, 0, 0, 0, 0, words - len(read)))


def _handed_on(state: State, rows: Tensor) -> State:
    hidden, cell = state
    return hidden.detach().index_select(1, rows), cell.detach().index_select(1, rows)


def _run(lstm: nn.Module, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return states, shape (words, pieces, hidden units), and the last one of each piece of full length.

    Padding is read too: it changes nothing in front of it, and batches have little of it. A packed sequence
    is many times slower on a CPU; on a GPU it keeps cuDNN from the persistent kernels that it has for up to
    128 units (torch's RNN.cpp, get_algo).
    """
    if inputs.is_cuda and inputs.dtype == torch.bfloat16:
        return run_in_own_type(cast(nn.LSTM, lstm), inputs, state)
    states, last = lstm(inputs, state)
    return states, last


def run_in_own_type(lstm: nn.LSTM, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Do what `lstm(inputs, state)` does, with its weights in the type of the inputs.

    Autocast on CUDA runs cuDNN's LSTM in fp16 even where bf16 is asked for (AutocastRNN.cpp in torch's source
    names that type alone), and small gradients come out as zero. The weights lie one after another, as cuDNN
    wants them: else torch copies them once more at each call, with a warning.
    """
    parameters = list(lstm.parameters())
    flat = torch.cat([parameter.flatten() for parameter in parameters]).to(inputs.dtype)
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    weights = [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
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


def _mirror(lengths: Tensor, words: int) -> Tensor:
    """Return which word, of all pieces, comes into each one's place when every piece is read backwards.

    Shape (words * pieces,), counted along the pieces first. Done twice, every word is in its place again.
    """
    # Padding stays behind the piece: negative positions wrap to the end.
    positions = (lengths - 1 - torch.arange(words, device=lengths.device)[:, None]) % words
    return (positions * len(lengths) + torch.arange(len(lengths), device=lengths.device)).flatten()


def _mirrored(values: Tensor, mirror: Tensor) -> Tensor:
    """Return values of shape (words, pieces, units) with the words where `mirror` puts them."""
    mirrored: Tensor = _Mirrored.apply(values, mirror)  # type: ignore[no-untyped-call]
    return mirrored


class _Mirrored(Function):
    """Copies whole rows both ways. Autograd, not knowing that no row is read twice, would add one by one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mirror: Tensor) -> Tensor:
        ctx.save_for_backward(mirror)
        return _rows_taken(values, mirror)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mirror,) = ctx.saved_tensors
        return _rows_taken(gradient, mirror), None


def _rows_taken(values: Tensor, rows: Tensor) -> Tensor:
    return values.flatten(0, 1).index_select(0, rows).view_as(values)
