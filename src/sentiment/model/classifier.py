"""An LSTM that turns the token ids of a review into one logit."""

from typing import Literal

import torch
from torch import Tensor, nn

from sentiment.params.model import ModelParams
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}

EMBEDDING_STD = 0.1
"""Small against the gates' weights, so that gates start in the linear part of the sigmoid."""

PAIR_STD = 0.01
"""Smaller still: most pairs are rare, and a rare pair should start out saying nothing."""

HASH_FACTORS = (1_000_003, 7_919)
"""Primes of different size, so that `a b` and `b a` fall into different buckets."""


class SentimentClassifier(nn.Module):
    """Embedding, LSTM layers, pooling over the words, head.

    The score of a review does not depend on what else is in its batch: padding is never read, neither
    forwards nor backwards.
    """

    def __init__(self, params: ModelParams, vocabulary_size: int) -> None:
        super().__init__()
        self.params = params
        self.vocabulary_size = vocabulary_size
        directions: Literal[1, 2] = 2 if params.bidirectional else 1
        pooled_units = params.hidden_units * directions
        self.embedding = nn.Embedding(vocabulary_size, params.embedding_units, padding_idx=PADDING_ID)
        self.layers = nn.ModuleList(
            LSTMLayer(params.embedding_units if layer == 0 else pooled_units, params.hidden_units, directions)
            for layer in range(params.layers)
        )
        self.between_layers = nn.Dropout(params.dropout.layers)
        self.head = _head(params, pooled_units)
        self.pairs = (
            PairEmbedding(params.pair_buckets, params.embedding_units) if params.pair_buckets else None
        )
        with torch.no_grad():
            self.embedding.weight.normal_(std=EMBEDDING_STD)
            self.embedding.weight[PADDING_ID] = 0

    @property
    def last_layer(self) -> str:
        """Name of the module whose output is the logit."""
        return f"head.{len(self.head) - 1}"

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Score reviews.

        ids: shape (reviews, words), int64, padded at the end. lengths: shape (reviews,), words of each; a
        review without words counts as one padding word. Returns logits, shape (reviews,), float32.
        """
        lengths = lengths.clamp(min=1)
        chunk = self.params.chunk_tokens
        if chunk is None:
            states = self._states(self._embedded(ids), lengths)
        else:
            states = self._states_by_chunk(self._embedded(ids), lengths, chunk)
        logits: Tensor = self.head(self._pooled(states, lengths)).squeeze(-1)
        return logits.float()

    def _embedded(self, ids: Tensor) -> Tensor:
        dropout = self.params.dropout
        if self.training and dropout.words:
            dropped = (torch.rand(ids.shape, device=ids.device) < dropout.words) & (ids != PADDING_ID)
            ids = ids.masked_fill(dropped, UNKNOWN_ID)
        embedded: Tensor = self.embedding(ids)
        if self.pairs is not None:
            embedded = embedded + self.pairs(ids)
        if self.training and dropout.embeddings:
            kept = torch.rand(len(ids), 1, embedded.shape[2], device=ids.device) >= dropout.embeddings
            embedded = embedded * kept / (1 - dropout.embeddings)
        return embedded

    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the last layer's states, shape (reviews, words, directions * hidden units)."""
        mirror = _mirror(lengths, inputs.shape[1]) if self.params.bidirectional else None
        states = inputs
        for depth, layer in enumerate(self.layers):
            states = layer(self.between_layers(states) if depth else states, lengths, mirror)
        return states

    def _states_by_chunk(self, inputs: Tensor, lengths: Tensor, chunk: int) -> Tensor:
        """Like `_states`, each chunk of `chunk` words read by itself; chunks of padding are not read."""
        reviews, words, units = inputs.shape
        count = -(-words // chunk)
        chunks = nn.functional.pad(inputs, (0, 0, 0, count * chunk - words)).view(
            reviews * count, chunk, units
        )
        starts = torch.arange(0, count * chunk, chunk, device=inputs.device)
        chunk_lengths = (lengths[:, None] - starts).clamp(0, chunk).flatten()
        alive = chunk_lengths.nonzero().squeeze(1)
        states = self._states(chunks.index_select(0, alive), chunk_lengths[alive])
        whole = states.new_zeros(reviews * count, chunk, states.shape[2]).index_copy(0, alive, states)
        return whole.view(reviews, count * chunk, -1)[:, :words]

    def _pooled(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Reduce states to one vector per review, reading no padding."""
        if self.params.pooling == "last":
            rows = torch.arange(len(states), device=states.device)
            forward_units = self.params.hidden_units
            last = states[rows, lengths - 1, :forward_units]
            return torch.cat([last, states[:, 0, forward_units:]], dim=1)
        padding = _padding(lengths, states.shape[1])[..., None]
        if self.params.pooling == "max":
            return states.masked_fill(padding, float("-inf")).amax(dim=1)
        return states.masked_fill(padding, 0).sum(dim=1) / lengths[:, None]


class PairEmbedding(nn.Module):
    """An embedding of each word together with the one before it ("not good"), found by hash.

    Two pairs may share an entry: with more entries than frequent pairs, those that do are mostly rare.
    """

    def __init__(self, buckets: int, units: int) -> None:
        super().__init__()
        self.buckets = nn.Embedding(buckets, units)
        with torch.no_grad():
            self.buckets.weight.normal_(std=PAIR_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """Return shape (reviews, words, units); zero at a first word and next to an unknown one."""
        before, word = ids[:, :-1], ids[:, 1:]
        bucket = (before * HASH_FACTORS[0] + word * HASH_FACTORS[1]) % self.buckets.num_embeddings
        known = (before > UNKNOWN_ID) & (word > UNKNOWN_ID)
        return nn.functional.pad(self.buckets(bucket) * known[..., None], (0, 0, 1, 0))


class LSTMLayer(nn.Module):
    """One layer of `torch.nn.LSTM`, forwards and, where asked for, backwards.

    The backward direction is a second one-way LSTM over each review mirrored inside its own length. The
    library's `bidirectional=True` would start in the padding, and is slower on a CPU.
    """

    def __init__(self, input_units: int, hidden_units: int, directions: Literal[1, 2]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(
            nn.LSTM(input_units, hidden_units, batch_first=True) for _ in range(directions)
        )

    def forward(self, inputs: Tensor, lengths: Tensor, mirror: Tensor | None) -> Tensor:
        """Return states, shape (reviews, words, directions * hidden units).

        lengths: shape (reviews,), words of each; a hook tells states from padding by it.
        mirror: shape (reviews, words), the position that takes each one's place when read backwards.
        """
        forward: Tensor = self.directions[0](inputs)[0]
        if mirror is None:
            return forward
        backward: Tensor = self.directions[1](_taken(inputs, mirror))[0]
        return torch.cat([forward, _taken(backward, mirror)], dim=2)


def _head(params: ModelParams, inputs: int) -> nn.Sequential:
    dropout = nn.Dropout(params.dropout.head)
    if params.head.units == 0:
        return nn.Sequential(dropout, nn.Linear(inputs, 1))
    hidden = nn.Linear(inputs, params.head.units)
    return nn.Sequential(
        dropout, hidden, ACTIVATIONS[params.head.activation](), nn.Linear(params.head.units, 1)
    )


def _padding(lengths: Tensor, words: int) -> Tensor:
    return torch.arange(words, device=lengths.device) >= lengths[:, None]


def _mirror(lengths: Tensor, words: int) -> Tensor:
    positions = lengths[:, None] - 1 - torch.arange(words, device=lengths.device)
    return positions % words  # padding stays behind the review: negative positions wrap to the end


def _taken(values: Tensor, positions: Tensor) -> Tensor:
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[2]))
