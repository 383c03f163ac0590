"""The LSTM layers: truncated backpropagation, and equal states by every code path."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model.lstm import LSTMLayer, LSTMLayers, run_in_input_dtype
from tests.model.small_model import model_params

LENGTHS = torch.tensor([23, 1, 8, 16, 9, 17])
TOKENS = 23
DEPTHS = list(product((False, True), (1, 2)))


def _layers(**changes: Any) -> LSTMLayers:
    torch.manual_seed(0)
    return LSTMLayers(model_params(**changes))


def _inputs() -> Tensor:
    return torch.randn(TOKENS, len(LENGTHS), 6, generator=torch.Generator().manual_seed(1))


def _token_states(states: Tensor) -> Tensor:
    """The states without those of padding, which are undefined."""
    return states[torch.arange(len(states))[:, None] < LENGTHS]


def test_both_directions_equal_a_packed_bidirectional_lstm() -> None:
    torch.manual_seed(0)
    layer = LSTMLayer(6, 4, 2)
    reference = nn.LSTM(6, 4, bidirectional=True)
    for direction, suffix in zip(layer.directions, ("", "_reverse"), strict=True):
        for name, weight in direction.named_parameters():
            getattr(reference, f"{name}{suffix}").data.copy_(weight.data)
    packed = pack_padded_sequence(_inputs(), LENGTHS, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0])
    torch.testing.assert_close(_token_states(layer(_inputs(), LENGTHS)), _token_states(expected))


@pytest.mark.parametrize("chunk", [8, 10, 22, 23, 50])
@pytest.mark.parametrize(("bidirectional", "layers"), DEPTHS)
def test_carried_state_gives_the_states_of_the_whole_review(
    bidirectional: bool, layers: int, chunk: int
) -> None:
    shape = {"bidirectional": bidirectional, "layers": layers}
    whole = _layers(**shape)(_inputs(), LENGTHS)
    carried = _layers(**shape, chunk_tokens=chunk, carry_state=True)(_inputs(), LENGTHS)
    torch.testing.assert_close(_token_states(carried), _token_states(whole))


@pytest.mark.parametrize("layers", [1, 2])
def test_forward_gradient_stops_at_the_carried_state(layers: int) -> None:
    model = _layers(bidirectional=False, layers=layers, chunk_tokens=8, carry_state=True)
    inputs = _inputs().requires_grad_()
    states = model(inputs, LENGTHS)
    (gradient,) = torch.autograd.grad(states[15, 0].sum(), inputs)  # the last token of the second chunk
    reached = gradient[:, 0].abs().sum(dim=1).nonzero().squeeze(1)
    assert reached.tolist() == list(range(8, 16))


def test_backward_gradient_stops_at_the_carried_state() -> None:
    """A review of 23 tokens is read from its end: tokens 22 to 15, then 14 to 7, then 6 to 0."""
    model = _layers(bidirectional=True, chunk_tokens=8, carry_state=True)
    inputs = _inputs().requires_grad_()
    backward = model(inputs, LENGTHS)[..., 5:]
    (gradient,) = torch.autograd.grad(backward[7, 0].sum(), inputs)
    reached = gradient[:, 0].abs().sum(dim=1).nonzero().squeeze(1)
    assert reached.tolist() == list(range(7, 15))


def test_carried_state_comes_from_the_previous_chunk() -> None:
    model = _layers(bidirectional=False, chunk_tokens=8, carry_state=True)
    changed = _inputs()
    changed[3, 0] += 1
    before, after = model(_inputs(), LENGTHS), model(changed, LENGTHS)
    assert not torch.equal(before[22, 0], after[22, 0])
    torch.testing.assert_close(before[:, 1:], after[:, 1:], rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize(("bidirectional", "layers"), DEPTHS)
def test_padding_past_the_longest_review_changes_nothing(
    bidirectional: bool, layers: int, chunk: int | None
) -> None:
    model = _layers(
        bidirectional=bidirectional, layers=layers, chunk_tokens=chunk, carry_state=chunk is not None
    )
    wider = nn.functional.pad(_inputs(), (0, 0, 0, 0, 0, 12), value=3.0)
    states = model(wider, LENGTHS)
    assert len(states) == TOKENS + 12
    torch.testing.assert_close(_token_states(states[:TOKENS]), _token_states(model(_inputs(), LENGTHS)))


@pytest.mark.parametrize("from_zero", [True, False])
def test_running_in_the_input_dtype_equals_the_lstm(from_zero: bool) -> None:
    """The code path of bf16 on a GPU, run on the CPU in the dtype of the weights, is equal bit for bit."""
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5)
    start = None if from_zero else (torch.randn(1, len(LENGTHS), 5), torch.randn(1, len(LENGTHS), 5))
    found = []
    for run in (lstm, partial(run_in_input_dtype, lstm)):
        inputs = _inputs().requires_grad_()
        states, (hidden, cell) = run(inputs, start)
        loss = states.square().sum() + hidden.sum() + cell.sum()
        found.append([states, hidden, cell, *torch.autograd.grad(loss, [inputs, *lstm.parameters()])])
    for expected, got in zip(*found, strict=True):
        assert torch.equal(expected, got)


def test_bf16_inputs_keep_their_dtype_under_autocast() -> None:
    """Autocast would cast the inputs of a GPU's LSTM to fp16."""
    lstm, inputs = nn.LSTM(6, 5), _inputs().to(torch.bfloat16)
    with torch.autocast("cpu", torch.float16):
        states, last = run_in_input_dtype(lstm, inputs, None)
    states.float().sum().backward()
    assert {states.dtype, *(state.dtype for state in last)} == {torch.bfloat16}
    assert all(weight.grad.dtype == torch.float32 for weight in lstm.parameters() if weight.grad is not None)
    torch.testing.assert_close(states.float(), lstm(_inputs())[0], atol=0.02, rtol=0.02)
