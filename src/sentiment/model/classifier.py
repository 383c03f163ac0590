"""An LSTM, and n-grams beside it, that turn the token ids of a review into one logit."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Function

from sentiment.model.lstm import LSTMLayers, Pieces
from sentiment.model.ngram_branch import NGramPart
from sentiment.params.model import ModelParams
from sentiment.tokens.batches import Batch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID


class Inputs(NamedTuple):
    """What `SentimentClassifier.forward` takes, in its order; the lengths stay on the CPU."""

    ids: Tensor
    lengths: Tensor
    ngrams: tuple[Tensor, Tensor] | None


def inputs_of(batch: Batch, device: torch.device) -> Inputs:
    """Return a batch's arrays as tensors on a device; on the CPU in the same memory."""
    ngrams = None
    if batch.ngrams is not None:
        ngrams = _tensor(batch.ngrams.indices, device), _tensor(batch.ngrams.offsets, device)
    return Inputs(_tensor(batch.ids, device), torch.from_numpy(batch.lengths), ngrams)


def _tensor(array: NDArray[np.int32 | np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


DIRECTIONS = ("forward", "backward")


def layer_name(module: str) -> str:
    """Return the name of the layer that a parameter or module of the classifier belongs to.

    module: its dotted name inside the classifier. Of `layers.0.directions.1.weight_ih_l0` the layer is
    `lstm_1_backward`; of everything else it is the first part, as in `embedding` and `head`.
    """
    part, *inner = module.split(".")
    if part != "layers":
        return part
    return f"lstm_{int(inner[0]) + 1}_{DIRECTIONS[int(inner[2])]}"


LOWEST = float("-inf")


class Pooling(nn.Module):
    """Reduce states by the last one, their mean, their maximum, or attention.

    kind: as `model.pooling` in params.yaml. units: of a word's state. forward_units: how many of them come
    first and belong to the forward direction; the others, where there are any, to the backward one.
    """

    def __init__(
        self, kind: Literal["last", "mean", "max", "attention"], units: int, forward_units: int
    ) -> None:
        super().__init__()
        self.kind = kind
        self.forward_units = forward_units
        self.attention = Attention(units) if kind == "attention" else None

    def forward(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return shape (reviews, units); states: shape (words, pieces, units)."""
        if self.attention is not None:
            pooled: Tensor = self.attention(states, pieces)
            return pooled
        if self.kind == "last":
            first, last = pieces.ends
            forward = states[pieces.lengths[last] - 1, last, : self.forward_units]
            return torch.cat([forward, states[0, first, self.forward_units :]], dim=1)
        if self.kind == "max":
            return pieces.table(_largest(states, pieces.padding), LOWEST).amax(dim=1)
        words = pieces.table(pieces.lengths, 0).sum(dim=1)
        read = states.masked_fill(pieces.padding[..., None], 0)
        return pieces.table(read.sum(dim=0), 0).sum(dim=1) / words[:, None]


def _largest(states: Tensor, padding: Tensor) -> Tensor:
    """Return the maximum over the words, shape (pieces, units), without those that are padding."""
    largest: Tensor = _Largest.apply(states, padding)  # type: ignore[no-untyped-call]
    return largest


class _Largest(Function):
    """What `masked_fill` and `amax` do, and their gradient, bit for bit, in a third of the time.

    Words with the same state share its gradient evenly. Autograd counts them in 64-bit integers, one by one.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, padding: Tensor) -> Tensor:
        if states.device.type == "cpu":
            behind = padding.flatten().nonzero().squeeze(1)
            read = states.flatten(0, 1).index_fill(0, behind, LOWEST).view_as(states)
        else:  # the positions of padding would have to be waited for
            read = states.masked_fill(padding[..., None], LOWEST)
        largest = read.amax(dim=0)
        ctx.save_for_backward(read, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        read, largest = ctx.saved_tensors
        chosen = read == largest
        share = gradient / chosen.view(torch.uint8).sum(dim=0, dtype=torch.int32)
        return torch.where(chosen, share, share.new_zeros(())), None


class Attention(nn.Module):
    """The mean of a review's states, each weighted by how much it tells (additive self-attention).

    score_t = v . tanh(W h_t + b), weights = softmax of the scores over the review's words.
    Source: Yang et al. 2016, whose v is the context vector; Lin et al. 2017 with one hop and no penalty.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(units, units)
        self.context = nn.Linear(units, 1, bias=False)

    def forward(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return shape (reviews, units)."""
        weights = self.weights(states, pieces)
        return pieces.table((weights[..., None] * states).sum(dim=0), 0).sum(dim=1)

    def weights(self, states: Tensor, pieces: Pieces) -> Tensor:
        """Return each word's share, shape (words, pieces), float32: 0 for padding, 1 over a review."""
        scores: Tensor = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        by_review = pieces.table(scores.float().masked_fill(pieces.padding, LOWEST).t(), LOWEST)
        shares = by_review.flatten(1).softmax(dim=1).view_as(by_review)
        return pieces.untable(shares).t()


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}

EMBEDDING_STD = 0.1
"""Small against the gates' weights, so that gates start in the linear part of the sigmoid."""


class SentimentClassifier(nn.Module):
    """Embedding, LSTM layers, pooling over the words, head; beside them, where asked for, an n-gram part.

    The score of a review does not depend on what else is in its batch: padding is never read, neither
    forwards nor backwards.
    """

    def __init__(self, params: ModelParams, vocabulary_size: int, ngrams: NGramPart | None = None) -> None:
        super().__init__()
        self.params = params
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, params.embedding_dim, padding_idx=PADDING_ID)
        self.layers = LSTMLayers(params)
        self.pooling = Pooling(params.pooling, self.layers.units, params.hidden_units)
        self.head = _head(params, self.layers.units)
        self.ngrams = ngrams
        with torch.no_grad():
            self.embedding.weight.normal_(std=EMBEDDING_STD)
            self.embedding.weight[PADDING_ID] = 0

    @property
    def last_layer(self) -> str:
        """Name of the module whose output is the logit."""
        return f"head.{len(self.head) - 1}"

    def forward(self, ids: Tensor, lengths: Tensor, ngrams: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Score reviews.

        ids: shape (reviews, words), int64, padded at the end. lengths: shape (reviews,), words of each; best
        on the CPU, since shapes depend on them. A review without words counts as one padding word. ngrams:
        what `NGramPart.forward` takes, where the model has that part. Returns logits, shape (reviews,),
        float32.
        """
        return self.joined(self.parts(ids, lengths, ngrams))

    def parts(self, ids: Tensor, lengths: Tensor, ngrams: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return each part's logits, shape (parts, reviews): the LSTM's, then the n-grams' where it has them.

        Each is trained to be right by itself, whatever its share. Trained on their sum, the n-grams, which
        fit the training reviews within the first epoch, would leave the LSTM nothing to learn.
        """
        parts = [self._read(ids, lengths)]
        if self.ngrams is not None:
            if ngrams is None:
                raise ValueError("this model reads n-grams, and the batch has none")
            parts.append(self.ngrams(*ngrams))
        return torch.stack(parts)

    def joined(self, parts: Tensor) -> Tensor:
        """Return the model's logits, shape (reviews,), from what `parts` returned: their mean by shares."""
        if self.params.ngrams is None:
            return parts[0]
        deep, wide = parts
        return torch.lerp(deep, wide, self.params.ngrams.weight)

    def _read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        longest = None if self.params.carry_state else self.params.chunk_tokens
        pieces = Pieces.cut(lengths.clamp(min=1), longest).to(ids.device)
        states = self.layers(self._embedded(ids, pieces), pieces.lengths)
        logits: Tensor = self.head(self.pooling(states, pieces)).squeeze(-1)
        return logits.float()

    def find_ngrams(self, reviews: TokenizedReviews) -> ReviewNGrams | None:
        """Look up the n-grams that the model reads in reviews; None where it reads none."""
        return None if self.ngrams is None else self.ngrams.vocabulary.find(reviews)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so where reviews have to go."""
        return self.embedding.weight.device

    def _embedded(self, ids: Tensor, pieces: Pieces) -> Tensor:
        dropout = self.params.dropout
        if self.training and dropout.words:
            dropped = (torch.rand(ids.shape, device=ids.device) < dropout.words) & (ids != PADDING_ID)
            ids = ids.masked_fill(dropped, UNKNOWN_ID)
        embedded: Tensor = self.embedding(pieces.take(ids))
        if torch.is_autocast_enabled(ids.device.type):  # once, not once in each direction
            embedded = embedded.to(torch.get_autocast_dtype(ids.device.type))
        if self.training and dropout.embeddings:
            kept = torch.rand(len(ids), embedded.shape[2], device=ids.device) >= dropout.embeddings
            embedded = embedded * pieces.of_reviews(kept) / (1 - dropout.embeddings)
        return embedded


def _head(params: ModelParams, inputs: int) -> nn.Sequential:
    dropout = nn.Dropout(params.dropout.head)
    if params.head.units == 0:
        return nn.Sequential(dropout, nn.Linear(inputs, 1))
    hidden = nn.Linear(inputs, params.head.units)
    return nn.Sequential(
        dropout, hidden, ACTIVATIONS[params.head.activation](), nn.Linear(params.head.units, 1)
    )
