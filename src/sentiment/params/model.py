"""Parameters of the model's architecture."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sentiment.params.section import Section

DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class Dropout(Section):
    """Dropout rates: fractions of the values that are set to zero during training."""

    words: DropoutRate
    """Word dropout: fraction of tokens that are replaced by the out-of-vocabulary token."""
    embeddings: DropoutRate
    """Variational dropout: fraction of embedding channels dropped for a whole review (Gal and Ghahramani,
    2016)."""
    layers: DropoutRate
    """Dropout between LSTM layers; no effect with one layer."""
    head: DropoutRate
    """Dropout on the pooled review vector, before the classification head."""


class Head(Section):
    """Classification head: maps the pooled review vector to one logit."""

    units: Annotated[int, Field(ge=0)]
    """Units of the hidden layer. 0: no hidden layer, a linear head; the activation is then ignored."""
    activation: Literal["relu", "tanh", "gelu", "silu"]
    """Activation of the hidden layer. The LSTM's activations stay sigmoid and tanh, because the fused kernel
    supports no others."""


class NGrams(Section):
    """N-gram branch (wide and deep): a linear classifier of word n-grams, trained jointly with the LSTM."""

    order: Annotated[int, Field(ge=1, le=5)]
    """Number of tokens in the longest n-gram; all shorter n-grams are included."""
    min_reviews: PositiveInt
    """Minimum document frequency: number of training reviews that an n-gram must occur in to be a feature."""
    smoothing: PositiveFloat
    """Laplace smoothing of the document frequencies per label, as a fraction of the training reviews. Higher
    values shrink the weights of rare n-grams, such as names of films that occur in no other split."""
    weight: Annotated[float, Field(ge=0, le=1)]
    """Branch weight: weight of the n-gram branch in the model's logit. The LSTM has 1 - weight."""


class ModelParams(Section):
    """Architecture: embedding, LSTM, pooling over the tokens, classification head, optional n-gram branch."""

    max_tokens: PositiveInt
    """Maximum number of tokens read per review. `truncation` selects the part of a longer review."""
    truncation: Literal["head", "tail", "both"]
    """Part of a longer review that is read: its beginning, its end, or half of `max_tokens` from each."""
    chunk_tokens: Annotated[int | None, Field(ge=8)] = None
    """Maximum tokens of a chunk. Reviews are split into chunks of nearly equal length, or of exactly this
    length if the state is carried over. Null: reviews are not split."""
    carry_state: bool
    """True: the LSTM state at the end of a chunk is the initial state of the next chunk, without gradient:
    truncated BPTT (Williams and Peng, 1990); the scores equal those of the unsplit review. False: each chunk
    starts from a zero state."""
    embedding_dim: PositiveInt
    """Size of a token's embedding vector."""
    hidden_units: PositiveInt
    """Size of the LSTM's hidden state and cell state, per direction."""
    layers: Annotated[int, Field(ge=1, le=4)]
    """Number of stacked LSTM layers."""
    bidirectional: bool
    """Whether a second LSTM reads the review backwards."""
    pooling: Literal["last", "mean", "max", "attention"]
    """How the LSTM outputs of all tokens become one vector. `last`: the output at the last token (backward
    direction: at the first token). `attention`: a weighted mean with learned scores (Yang et al., 2016)."""
    dropout: Dropout
    """Dropout rates."""
    head: Head
    """Classification head."""
    ngrams: NGrams | None
    """N-gram branch. Null: the LSTM alone."""

    @model_validator(mode="after")
    def _validate_combinations(self) -> Self:
        if self.carry_state and self.chunk_tokens is None:
            raise ValueError("carry_state: true carries the LSTM state between chunks and needs chunk_tokens")
        if self.carry_state and self.pooling == "attention":
            raise ValueError(
                "pooling: attention cannot be combined with carry_state: true, because attention weights the "
                "tokens of all chunks together and carry_state blocks the gradient between chunks; use "
                "carry_state: false, or pooling last, mean or max"
            )
        return self
