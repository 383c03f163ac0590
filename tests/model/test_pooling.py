"""Pooling against sums written out."""

import pytest
import torch

from sentiment.model.pooling import Attention, Pooling

STATES = torch.tensor([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]], [[-4.0, -1.0], [9.0, 9.0], [9.0, 9.0]]])
LENGTHS = torch.tensor([2, 1])


@pytest.mark.parametrize(
    ("kind", "forward_units", "expected"),
    [
        ("last", 2, [[3.0, 2.0], [-4.0, -1.0]]),
        ("last", 1, [[3.0, 5.0], [-4.0, -1.0]]),
        ("mean", 1, [[2.0, 3.5], [-4.0, -1.0]]),
        ("max", 1, [[3.0, 5.0], [-4.0, -1.0]]),
    ],
)
def test_pooled_by_hand(kind: str, forward_units: int, expected: list[list[float]]) -> None:
    pooling = Pooling(kind, 2, forward_units)
    torch.testing.assert_close(pooling(STATES, LENGTHS), torch.tensor(expected))


def test_attention_by_hand() -> None:
    """W = identity, b = 0, v = (1, 0): the first unit decides."""
    attention = Attention(2)
    with torch.no_grad():
        attention.hidden.weight.copy_(torch.eye(2))
        attention.hidden.bias.zero_()
        attention.context.weight.copy_(torch.tensor([[1.0, 0.0]]))
    padding = torch.tensor([[False, False, True], [False, True, True]])
    scores = torch.tanh(torch.tensor([1.0, 3.0])).exp()
    first = scores / scores.sum()
    torch.testing.assert_close(
        attention.weights(STATES, padding), torch.tensor([[first[0], first[1], 0.0], [1.0, 0.0, 0.0]])
    )
    expected = torch.stack([first[0] * STATES[0, 0] + first[1] * STATES[0, 1], STATES[1, 0]])
    torch.testing.assert_close(attention(STATES, padding), expected)
