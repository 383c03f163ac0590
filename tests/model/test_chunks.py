"""Splitting of reviews into chunks, and the mapping back to reviews."""

import pytest
import torch

from sentiment.model.pooling import Chunks
from sentiment.tokens.vocabulary import PADDING_ID

LENGTHS = [7, 1, 4, 12]
IDS = torch.tensor([[10 * review + token for token in range(12)] for review in range(1, 5)])


def _tokens(chunk_tokens: int | None) -> list[list[int]]:
    """The tokens of each chunk, without its padding."""
    chunks = Chunks.split(torch.tensor(LENGTHS), chunk_tokens)
    gathered = chunks.gather_tokens(IDS).t().tolist()
    assert all(
        PADDING_ID in chunk[length:] or length == chunks.max_length
        for chunk, length in _with_lengths(chunks, gathered)
    )
    return [chunk[:length] for chunk, length in _with_lengths(chunks, gathered)]


def _with_lengths(chunks: Chunks, gathered: list[list[int]]) -> list[tuple[list[int], int]]:
    return list(zip(gathered, chunks.lengths.tolist(), strict=True))


def test_chunks_of_known_reviews() -> None:
    assert _tokens(4) == [
        [10, 11, 12, 13],
        [14, 15, 16],
        [20],
        [30, 31, 32, 33],
        [40, 41, 42, 43],
        [44, 45, 46, 47],
        [48, 49, 50, 51],
    ]
    assert _tokens(6)[:2] == [[10, 11, 12, 13], [14, 15, 16]], "equal lengths, not six and one"


@pytest.mark.parametrize("chunk_tokens", [None, *range(1, 13)])
def test_chunks_contain_every_token_once_in_order(chunk_tokens: int | None) -> None:
    chunks = _tokens(chunk_tokens)
    expected = [IDS[review, :length].tolist() for review, length in enumerate(LENGTHS)]
    assert [token for chunk in chunks for token in chunk] == [
        token for review in expected for token in review
    ]
    assert all(0 < len(chunk) <= (chunk_tokens or 12) for chunk in chunks)


@pytest.mark.parametrize("chunk_tokens", [None, 3, 5])
def test_grouped_values_have_a_row_per_review(chunk_tokens: int | None) -> None:
    chunks = Chunks.split(torch.tensor(LENGTHS), chunk_tokens)
    grid = chunks.group_by_review(chunks.lengths, -1)
    assert grid.clamp(min=0).sum(dim=1).tolist() == LENGTHS
    assert torch.equal(chunks.ungroup(grid), chunks.lengths)
    first, last = chunks.first_and_last_indices
    assert chunks.gather_tokens(IDS)[0, first].tolist() == IDS[:, 0].tolist()
    last_tokens = chunks.gather_tokens(IDS)[chunks.lengths[last] - 1, last]
    assert last_tokens.tolist() == [IDS[review, length - 1].item() for review, length in enumerate(LENGTHS)]


def test_values_of_a_review_are_repeated_for_each_of_its_chunks() -> None:
    chunks = Chunks.split(torch.tensor(LENGTHS), 4)
    assert chunks.expand_to_chunks(torch.tensor([1, 2, 3, 4])).tolist() == [1, 1, 2, 3, 4, 4, 4]
