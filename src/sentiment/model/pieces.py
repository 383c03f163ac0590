"""Reviews cut into pieces of words that an LSTM reads side by side."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

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
