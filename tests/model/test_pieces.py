"""Reviews cut into pieces, and put together again."""

import pytest
import torch

from sentiment.model.lstm import Pieces
from sentiment.tokens.vocabulary import PADDING_ID

LENGTHS = [7, 1, 4, 12]
IDS = torch.tensor([[10 * review + word for word in range(12)] for review in range(1, 5)])


def _words(longest: int | None) -> list[list[int]]:
    """The words of each piece, without its padding."""
    pieces = Pieces.cut(torch.tensor(LENGTHS), longest)
    taken = pieces.take(IDS).t().tolist()
    assert all(
        PADDING_ID in piece[length:] or length == pieces.words
        for piece, length in _with_lengths(pieces, taken)
    )
    return [piece[:length] for piece, length in _with_lengths(pieces, taken)]


def _with_lengths(pieces: Pieces, taken: list[list[int]]) -> list[tuple[list[int], int]]:
    return list(zip(taken, pieces.lengths.tolist(), strict=True))


def test_pieces_by_hand() -> None:
    assert _words(4) == [
        [10, 11, 12, 13],
        [14, 15, 16],
        [20],
        [30, 31, 32, 33],
        [40, 41, 42, 43],
        [44, 45, 46, 47],
        [48, 49, 50, 51],
    ]
    assert _words(6)[:2] == [[10, 11, 12, 13], [14, 15, 16]], "as long as one another, not six and one"


@pytest.mark.parametrize("longest", [None, *range(1, 13)])
def test_pieces_hold_every_word_once_in_order(longest: int | None) -> None:
    pieces = _words(longest)
    expected = [IDS[review, :length].tolist() for review, length in enumerate(LENGTHS)]
    assert [word for piece in pieces for word in piece] == [word for review in expected for word in review]
    assert all(0 < len(piece) <= (longest or 12) for piece in pieces)


@pytest.mark.parametrize("longest", [None, 3, 5])
def test_table_has_a_row_per_review(longest: int | None) -> None:
    pieces = Pieces.cut(torch.tensor(LENGTHS), longest)
    table = pieces.table(pieces.lengths, -1)
    assert table.clamp(min=0).sum(dim=1).tolist() == LENGTHS
    assert torch.equal(pieces.untable(table), pieces.lengths)
    first, last = pieces.ends
    assert pieces.take(IDS)[0, first].tolist() == IDS[:, 0].tolist()
    ends = pieces.take(IDS)[pieces.lengths[last] - 1, last]
    assert ends.tolist() == [IDS[review, length - 1].item() for review, length in enumerate(LENGTHS)]


def test_values_of_a_review_go_to_each_of_its_pieces() -> None:
    pieces = Pieces.cut(torch.tensor(LENGTHS), 4)
    assert pieces.of_reviews(torch.tensor([1, 2, 3, 4])).tolist() == [1, 1, 2, 3, 4, 4, 4]
