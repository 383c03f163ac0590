"""An LSTM, and n-grams beside it, that turn the token ids of a review into one logit."""

import torch
from torch import Tensor, nn

from sentiment.model.lstm import LSTMLayers
from sentiment.model.ngrams import NGramPart
from sentiment.model.pieces import Pieces
from sentiment.model.pooling import Pooling
from sentiment.params.model import ModelParams
from sentiment.tokens.ngrams import ReviewNGrams
from sentiment.tokens.store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID

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
        self.embedding = nn.Embedding(vocabulary_size, params.embedding_units, padding_idx=PADDING_ID)
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
        return torch.lerp(deep, wide, self.params.ngrams.share)

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
