"""The LSTM layers: what is handed on, what is not, and that every path gives the same states."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model.lstm import LSTMLayer, LSTMLayers, run_in_own_type
from tests.model.shapes import model_params

LENGTHS = torch.tensor([23, 1, 8, 16, 9, 17])
WORDS = 23
DEPTHS = list(product((False, True), (1, 2)))


def _layers(**changes: Any) -> LSTMLayers:
    torch.manual_seed(0)
    return LSTMLayers(model_params(**changes))


def _inputs() -> Tensor:
    return torch.randn(WORDS, len(LENGTHS), 6, generator=torch.Generator().manual_seed(1))


def _words(states: Tensor) -> Tensor:
    """The states of words; those of padding are anything."""
    return states[torch.arange(len(states))[:, None] < LENGTHS]


def test_both_directions_are_those_of_a_packed_lstm() -> None:
    torch.manual_seed(0)
    ours = LSTMLayer(6, 4, 2)
    reference = nn.LSTM(6, 4, bidirectional=True)
    for direction, suffix in zip(ours.directions, ("", "_reverse"), strict=True):
        for name, weight in direction.named_parameters():
            getattr(reference, f"{name}{suffix}").data.copy_(weight.data)
    packed = pack_padded_sequence(_inputs(), LENGTHS, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0])
    torch.testing.assert_close(_words(ours(_inputs(), LENGTHS)), _words(expected))


@pytest.mark.parametrize("chunk", [8, 10, 22, 23, 50])
@pytest.mark.parametrize(("bidirectional", "layers"), DEPTHS)
def test_handing_the_state_on_reads_as_in_one_go(bidirectional: bool, layers: int, chunk: int) -> None:
    shape = {"bidirectional": bidirectional, "layers": layers}
    whole = _layers(**shape)(_inputs(), LENGTHS)
    carried = _layers(**shape, chunk_tokens=chunk, carry_state=True)(_inputs(), LENGTHS)
    torch.testing.assert_close(_words(carried), _words(whole))


@pytest.mark.parametrize("layers", [1, 2])
def test_gradient_forwards_stops_where_the_state_is_handed_on(layers: int) -> None:
    model = _layers(bidirectional=False, layers=layers, chunk_tokens=8, carry_state=True)
    inputs = _inputs().requires_grad_()
    states = model(inputs, LENGTHS)
    (gradient,) = torch.autograd.grad(states[15, 0].sum(), inputs)  # the last word of the second chunk
    reached = gradient[:, 0].abs().sum(dim=1).nonzero().squeeze(1)
    assert reached.tolist() == list(range(8, 16))


def test_gradient_backwards_stops_where_the_state_is_handed_on() -> None:
    """A review of 23 words is read from its end: words 22 to 15, then 14 to 7, then 6 to 0."""
    model = _layers(bidirectional=True, chunk_tokens=8, carry_state=True)
    inputs = _inputs().requires_grad_()
    backward = model(inputs, LENGTHS)[..., 5:]
    (gradient,) = torch.autograd.grad(backward[7, 0].sum(), inputs)
    reached = gradient[:, 0].abs().sum(dim=1).nonzero().squeeze(1)
    assert reached.tolist() == list(range(7, 15))


def test_state_handed_on_comes_from_the_chunk_before() -> None:
    model = _layers(bidirectional=False, chunk_tokens=8, carry_state=True)
    changed = _inputs()
    changed[3, 0] += 1
    before, after = model(_inputs(), LENGTHS), model(changed, LENGTHS)
    assert not torch.equal(before[22, 0], after[22, 0])
    torch.testing.assert_close(before[:, 1:], after[:, 1:], rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize(("bidirectional", "layers"), DEPTHS)
def test_padding_behind_the_longest_review_changes_nothing(
    bidirectional: bool, layers: int, chunk: int | None
) -> None:
    model = _layers(
        bidirectional=bidirectional, layers=layers, chunk_tokens=chunk, carry_state=chunk is not None
    )
    wider = nn.functional.pad(_inputs(), (0, 0, 0, 0, 0, 12), value=3.0)
    states = model(wider, LENGTHS)
    assert len(states) == WORDS + 12
    torch.testing.assert_close(_words(states[:WORDS]), _words(model(_inputs(), LENGTHS)))


@pytest.mark.parametrize("from_zero", [True, False])
def test_reading_in_the_inputs_type_equals_the_lstm_itself(from_zero: bool) -> None:
    """The path that a GPU takes in bf16, on the CPU and in the weights' own type: the same, bit for bit."""
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5)
    start = None if from_zero else (torch.randn(1, len(LENGTHS), 5), torch.randn(1, len(LENGTHS), 5))
    found = []
    for run in (lstm, partial(run_in_own_type, lstm)):
        inputs = _inputs().requires_grad_()
        states, (hidden, cell) = run(inputs, start)
        loss = states.square().sum() + hidden.sum() + cell.sum()
        found.append([states, hidden, cell, *torch.autograd.grad(loss, [inputs, *lstm.parameters()])])
    for expected, got in zip(*found, strict=True):
        assert torch.equal(expected, got)


def test_reading_in_bf16_keeps_its_type_under_autocast() -> None:
    """Autocast itself would hand a GPU's LSTM fp16."""
    lstm, inputs = nn.LSTM(6, 5), _inputs().to(torch.bfloat16)
    with torch.autocast("cpu", torch.float16):
        states, last = run_in_own_type(lstm, inputs, None)
    states.float().sum().backward()
    assert {states.dtype, *(state.dtype for state in last)} == {torch.bfloat16}
    assert all(weight.grad.dtype == torch.float32 for weight in lstm.parameters() if weight.grad is not None)
    torch.testing.assert_close(states.float(), lstm(_inputs())[0], atol=0.02, rtol=0.02)
