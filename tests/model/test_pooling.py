"""Pooling against sums written out."""

import pytest
import torch

from sentiment.model.classifier import Attention, Pooling
from sentiment.model.lstm import Pieces

STATES = torch.tensor([[[1.0, 5.0], [-4.0, -1.0]], [[3.0, 2.0], [9.0, 9.0]]])
"""Of two words, of two reviews; the nines stand behind the second one's end."""
LENGTHS = torch.tensor([2, 1])
WHOLE = Pieces.cut(LENGTHS, None)


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
    torch.testing.assert_close(pooling(STATES, WHOLE), torch.tensor(expected))


def test_attention_by_hand() -> None:
    """W = identity, b = 0, v = (1, 0): the first unit decides."""
    attention = Attention(2)
    with torch.no_grad():
        attention.hidden.weight.copy_(torch.eye(2))
        attention.hidden.bias.zero_()
        attention.context.weight.copy_(torch.tensor([[1.0, 0.0]]))
    scores = torch.tanh(torch.tensor([1.0, 3.0])).exp()
    first = scores / scores.sum()
    torch.testing.assert_close(
        attention.weights(STATES, WHOLE), torch.tensor([[first[0], 1.0], [first[1], 0.0]])
    )
    expected = torch.stack([first[0] * STATES[0, 0] + first[1] * STATES[1, 0], STATES[0, 1]])
    torch.testing.assert_close(attention(STATES, WHOLE), expected)


@pytest.mark.parametrize("kind", ["last", "mean", "max", "attention"])
def test_pieces_are_pooled_as_the_review_that_they_make(kind: str) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([7, 1, 4, 12])
    pooling, states = Pooling(kind, 6, 3), torch.randn(12, 4, 6)
    whole = pooling(states, Pieces.cut(lengths, None))
    pieces = Pieces.cut(lengths, 3)
    apart = pieces.take(torch.arange(4 * 12).view(4, 12))  # each word known by its place in the reviews
    by_review = states.transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(pooling(by_review[apart], pieces), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("longest", [3, None])
def test_gradient_of_the_largest_is_autograds(dtype: torch.dtype, longest: int | None) -> None:
    torch.manual_seed(0)
    pieces = Pieces.cut(torch.tensor([7, 1, 4, 300]), longest)
    shape = (pieces.words, len(pieces.lengths), 6)
    values = torch.randint(-2, 3, shape).to(dtype)  # of many equal ones
    ours, autograds = values.clone().requires_grad_(), values.clone().requires_grad_()
    lowest = float("-inf")
    by_piece = autograds.masked_fill(pieces.padding[..., None], lowest).amax(dim=0)
    expected = pieces.table(by_piece, lowest).amax(dim=1)
    pooled = Pooling("max", 6, 3)(ours, pieces)
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert autograds.grad is not None
    assert pooled.equal(expected)
    assert ours.grad.equal(autograds.grad)
    assert ours.grad.count_nonzero() > weights.numel()
