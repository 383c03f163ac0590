"""Pooling compared with values computed by an independent formula."""

import pytest
import torch

from sentiment.model.pooling import Attention, Chunks, Pooling

STATES = torch.tensor([[[1.0, 5.0], [-4.0, -1.0]], [[3.0, 2.0], [9.0, 9.0]]])
"""Two tokens of two reviews; the nines are padding of the second one."""
LENGTHS = torch.tensor([2, 1])
WHOLE = Chunks.split(LENGTHS, None)


@pytest.mark.parametrize(
    ("kind", "forward_units", "expected"),
    [
        ("last", 2, [[3.0, 2.0], [-4.0, -1.0]]),
        ("last", 1, [[3.0, 5.0], [-4.0, -1.0]]),
        ("mean", 1, [[2.0, 3.5], [-4.0, -1.0]]),
        ("max", 1, [[3.0, 5.0], [-4.0, -1.0]]),
    ],
)
def test_pooling_of_known_states(kind: str, forward_units: int, expected: list[list[float]]) -> None:
    pooling = Pooling(kind, 2, forward_units)
    torch.testing.assert_close(pooling(STATES, WHOLE), torch.tensor(expected))


def test_attention_of_known_states() -> None:
    """W = I, b = 0, v = (1, 0): the first unit determines the weights."""
    attention = Attention(2)
    with torch.no_grad():
        attention.hidden.weight.copy_(torch.eye(2))
        attention.hidden.bias.zero_()
        attention.context.weight.copy_(torch.tensor([[1.0, 0.0]]))
    scores = torch.tanh(torch.tensor([1.0, 3.0])).exp()
    first = scores / scores.sum()
    torch.testing.assert_close(
        attention.compute_weights(STATES, WHOLE), torch.tensor([[first[0], 1.0], [first[1], 0.0]])
    )
    expected = torch.stack([first[0] * STATES[0, 0] + first[1] * STATES[1, 0], STATES[0, 1]])
    torch.testing.assert_close(attention(STATES, WHOLE), expected)


@pytest.mark.parametrize("kind", ["last", "mean", "max", "attention"])
def test_chunked_review_is_pooled_like_the_whole_review(kind: str) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([7, 1, 4, 12])
    pooling, states = Pooling(kind, 6, 3), torch.randn(12, 4, 6)
    whole = pooling(states, Chunks.split(lengths, None))
    chunks = Chunks.split(lengths, 3)
    positions = chunks.gather_tokens(torch.arange(4 * 12).view(4, 12))  # token ids are positions
    by_review = states.transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(pooling(by_review[positions], chunks), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_tokens", [3, None])
def test_gradient_of_max_pooling_equals_that_of_autograd(
    dtype: torch.dtype, chunk_tokens: int | None
) -> None:
    torch.manual_seed(0)
    chunks = Chunks.split(torch.tensor([7, 1, 4, 300]), chunk_tokens)
    shape = (chunks.max_length, len(chunks.lengths), 6)
    values = torch.randint(-2, 3, shape).to(dtype)  # few distinct values, so that many maxima are tied
    states, reference = values.clone().requires_grad_(), values.clone().requires_grad_()
    lowest = float("-inf")
    by_chunk = reference.masked_fill(chunks.padding_mask[..., None], lowest).amax(dim=0)
    expected = chunks.group_by_review(by_chunk, lowest).amax(dim=1)
    pooled = Pooling("max", 6, 3)(states, chunks)
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert states.grad is not None
    assert reference.grad is not None
    assert pooled.equal(expected)
    assert states.grad.equal(reference.grad)
    assert states.grad.count_nonzero() > weights.numel()
