"""Parameters of the classifier's shape."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sentiment.params.section import Section

DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class Dropout(Section):
    """Share of values set to zero while training, by place."""

    words: DropoutRate
    """Whole words, replaced by the unknown-word entry."""
    embeddings: DropoutRate
    """Channels of the embedded review, each channel for the whole review (Gal and Ghahramani, 2016)."""
    layers: DropoutRate
    """Values between one LSTM layer and the next; nothing where there is one layer."""
    head: DropoutRate
    """Values of the pooled review in front of the head."""


class Head(Section):
    """From the pooled review to one logit."""

    units: Annotated[int, Field(ge=0)]
    """Units of the hidden layer in between; 0 is a linear head, and then the activation plays no part."""
    activation: Literal["relu", "tanh", "gelu", "silu"]
    """Of that hidden layer. The LSTM's own stay sigmoid and tanh: with others the fused kernel is lost."""


class NGrams(Section):
    """A linear classifier of word n-grams beside the LSTM, trained with it."""

    order: Annotated[int, Field(ge=1, le=5)]
    """Words of the longest n-gram; all shorter ones are in it too."""
    min_reviews: PositiveInt
    """Training reviews that must contain an n-gram for it to have a weight."""
    smoothing: PositiveFloat
    """Share of all training reviews that is added to those of each label that contain an n-gram, before they
    are compared (Laplace). Much of it makes rare n-grams quiet: names of films that no other split has."""
    weight: Annotated[float, Field(ge=0, le=1)]
    """Of the model's logit, which is a weighted mean of both; the rest is the LSTM's."""


class ModelParams(Section):
    """Embedding, LSTM, pooling over the words, head; an n-gram part beside them."""

    max_tokens: PositiveInt
    """Longest review that the model reads; of a longer one it keeps the part that `keep` names."""
    truncation: Literal["head", "tail", "both"]
    """`both` keeps the first and the last half of `max_tokens`."""
    chunk_tokens: Annotated[int | None, Field(ge=8)] = None
    """Cut a review into chunks of at most this many words, all about equally long unless the state
    is carried. Null reads it in one go."""
    carry_state: bool
    """True hands the state after a chunk on to the next one, without its gradient: truncated BPTT (Williams
    and Peng, 1990); scores are those of a review read in one go. False: each chunk from a zero state."""
    embedding_dim: PositiveInt
    hidden_units: PositiveInt
    """Width of the cell state, per direction."""
    layers: Annotated[int, Field(ge=1, le=4)]
    bidirectional: bool
    pooling: Literal["last", "mean", "max", "attention"]
    """`last`: the state after the last word (and, backwards, after the first). `attention`: a mean
    weighted by learned scores (Yang et al., 2016)."""
    dropout: Dropout
    head: Head
    ngrams: NGrams | None
    """Null: the LSTM alone."""

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.carry_state and self.chunk_tokens is None:
            raise ValueError("carry_state: true hands the state from chunk to chunk: it needs chunk_tokens")
        if self.carry_state and self.pooling == "attention":
            raise ValueError(
                "pooling: attention weighs all chunks together, which carry_state: true would train without "
                "the gradient between them; use carry_state: false, or pooling last, mean or max"
            )
        return self
