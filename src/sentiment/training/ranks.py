"""Data-parallel training: processes (ranks) that train one model together, each on its part of every batch.

All ranks have the same weights, optimizer and random states, and see the same sequence of batches. In a
step, each computes the gradient of its reviews; the sum over the ranks is the gradient of the whole batch,
with which all take the same step. The number of ranks changes how sums are rounded, and nothing else.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier, predict_logits
from sentiment.params.model import ModelParams
from sentiment.tokens.batches import Batch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import UNKNOWN_ID
from sentiment.training.checkpoint_file import join_state, split_state
from sentiment.training.state import TrainingState


class LostRankError(UserError):
    """Another rank ended or cannot be reached, so that this one cannot continue."""

    exit_status = 1


@dataclass(frozen=True)
class Ranks:
    """The ranks of a training and which of them this process is; with more than one, in a process group."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the rank that logs, writes checkpoints and returns the model."""
        return self.rank == 0

    def take_part(self, batch: Batch, params: ModelParams) -> Batch:
        """Return this rank's part of a batch; all parts take about the same time."""
        if self.size == 1:
            return batch
        bounds = split_evenly(batch.lengths, None if params.carry_state else params.chunk_tokens, self.size)
        return batch.take(bounds[self.rank], bounds[self.rank + 1])

    def sum_gradients(self, model: SentimentClassifier, batch: Batch, scalars: list[Tensor]) -> list[Tensor]:
        """Sum the gradients of a model over the ranks, in place, and some scalars with them.

        Of the embedding and of the n-gram weights, only the rows that occur in the whole batch have a
        gradient, and only they are exchanged.

        Args:
            model: model whose gradients to sum.
            batch: this rank's part of the batch.
            scalars: scalars to sum.

        Returns:
            The sums of the scalars.

        Raises:
            LostRankError: another rank ended.
        """
        if self.size == 1:
            return scalars
        rows = {
            name: torch.from_numpy(occurring).to(model.device)
            for name, occurring in _find_occurring_rows(model, batch.whole).items()
        }
        parameters = model.named_parameters()
        gradients = {name: weight.grad for name, weight in parameters if weight.grad is not None}
        parts = [
            gradient.index_select(0, rows[name]) if name in rows else gradient
            for name, gradient in gradients.items()
        ]
        values = [*(part.flatten() for part in parts), torch.stack([s.to(parts[0].dtype) for s in scalars])]
        sums = torch.cat(values)
        communicate(self, lambda: dist.all_reduce(sums))
        *summed_parts, summed_scalars = torch.split(sums, [len(part) for part in values])
        for (name, gradient), part, summed in zip(gradients.items(), parts, summed_parts, strict=True):
            if name in rows:
                gradient.index_copy_(0, rows[name], summed.view_as(part))
            else:
                gradient.copy_(summed.view_as(part))
        return list(summed_scalars)

    def predict_logits(
        self,
        model: SentimentClassifier,
        reviews: TokenizedReviews,
        description: str,
        ngrams: ReviewNGrams | None = None,
    ) -> NDArray[np.float32]:
        """Compute the logits of reviews as `predict_logits` does, each batch on one of the ranks.

        The batches are those of a single process, so that the logits are as well.
        """
        logits = predict_logits(model, reviews, description, ngrams, part=(self.rank, self.size))
        if self.size > 1:  # the logits of other ranks' batches are 0
            communicate(self, lambda: dist.all_reduce(torch.from_numpy(logits)))
        return logits

    def broadcast(self, content: bytes) -> bytes:
        """Return the content that the main rank passes; that of the others is ignored."""
        if self.size == 1:
            return content
        size = torch.tensor([len(content)])
        communicate(self, lambda: dist.broadcast(size, 0))
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.is_main:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        communicate(self, lambda: dist.broadcast(buffer, 0))
        return buffer.numpy().tobytes()

    def require_equal_weights(self, model: SentimentClassifier, where: str) -> None:
        """Require that all ranks have bitwise equal weights.

        Args:
            model: model whose weights to compare.
            where: position in the training, for the error message.

        Raises:
            UserError: the weights differ.
        """
        if self.size == 1:
            return
        digest = 0
        for weight in model.state_dict().values():
            digest = zlib.crc32(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, digest)
        extremes = torch.tensor([digest, -digest])
        communicate(self, lambda: dist.all_reduce(extremes, dist.ReduceOp.MAX))
        if int(extremes.sum()) != 0:
            raise UserError(
                f"{where}: the weights of the {self.size} ranks differ, although all take the same steps; "
                "use machines with processors or GPUs of the same type, or set train.ranks to 1"
            )


def communicate(ranks: Ranks, operation: Callable[[], object]) -> None:
    """Call a function that exchanges data with other ranks.

    Raises:
        LostRankError: another rank ended or cannot be reached.
    """
    try:
        operation()
    except RuntimeError as error:  # of gloo or NCCL: a connection was closed or timed out
        cause = _summarize(error)
        raise LostRankError(f"rank {ranks.rank} of {ranks.size} lost the other ranks: {cause}") from None


def _summarize(error: RuntimeError) -> str:
    """Return the first sentence of an error of gloo or NCCL, without its position in their source."""
    line, *_ = str(error).splitlines() or [""]
    return re.sub(r"^\[\S+:\d+\] ", "", line).partition(". ")[0]


SINGLE = Ranks()
"""Training in one process."""


def share_state(state: TrainingState, ranks: Ranks) -> None:
    """Give all ranks the state of the main rank, which alone may have resumed from a checkpoint."""
    if ranks.size == 1:
        return
    content, tensors = split_state({"state": state.state_dict(), "best_weights": state.best_weights})
    shared_content = ranks.broadcast(content.encode() if ranks.is_main else b"").decode()
    shared_tensors = ranks.broadcast(save(tensors) if ranks.is_main else b"")
    if not ranks.is_main:
        shared = join_state(shared_content, load(shared_tensors))
        state.load_state_dict(shared["state"], shared["best_weights"])


def split_evenly(lengths: NDArray[np.int64], chunk_tokens: int | None, ranks: int) -> list[int]:
    """Split a batch into consecutive parts of about equal work, so that the ranks finish together.

    The work of a part is its number of tokens with padding: the size of the (tokens, chunks) array that the
    LSTM reads. The reviews of a batch are sorted by length, so consecutive ones have the least padding.

    Args:
        lengths: number of tokens of each review, shape (reviews,).
        chunk_tokens: maximum number of tokens in a chunk; None if reviews are not split into chunks.
        ranks: number of parts.

    Returns:
        Position of the first review of each part, and the number of reviews at the end. Parts may be empty.
    """
    reviews = np.maximum(lengths, 1)
    chunks = np.ones_like(reviews) if chunk_tokens is None else -(-reviews // chunk_tokens)
    chunk_lengths = -(-reviews // chunks)
    bounds = [0, *[len(reviews)] * ranks]  # all reviews in the first part
    low, high = 1, int(chunk_lengths.max() * chunks.sum())
    while low < high:  # the smallest largest part, by bisection
        largest = (low + high) // 2
        filled = _fill_parts(chunks, chunk_lengths, largest, ranks)
        if filled is None:
            low = largest + 1
        else:
            bounds, high = filled, largest
    return bounds


def _fill_parts(
    chunks: NDArray[np.int64], chunk_lengths: NDArray[np.int64], largest: int, ranks: int
) -> list[int] | None:
    """Fill one part after the other up to a number of padded tokens; None if that takes too many parts."""
    bounds, start = [0], 0
    for _ in range(ranks):
        padded = np.maximum.accumulate(chunk_lengths[start:]) * np.cumsum(chunks[start:])
        start += int(np.searchsorted(padded, largest, side="right"))
        bounds.append(start)
    return bounds if start == len(chunks) else None


def _find_occurring_rows(model: SentimentClassifier, batch: Batch) -> dict[str, NDArray[np.int64]]:
    """Return the rows with a gradient of the parameters whose rows stand for tokens or n-grams, by name."""
    occurs = np.zeros(model.vocabulary_size, dtype=np.bool_)
    occurs[batch.ids] = True
    occurs[UNKNOWN_ID] = True  # word dropout replaces tokens by it
    rows = {"embedding.weight": np.flatnonzero(occurs)}
    if batch.ngrams is not None and model.ngrams is not None:
        occurs = np.zeros(len(model.ngrams.weights), dtype=np.bool_)
        occurs[batch.ngrams.indices] = True
        rows["ngrams.weights"] = np.flatnonzero(occurs)
    return rows
