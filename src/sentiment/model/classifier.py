"""The sentiment classifier, an LSTM with an optional n-gram branch, and batched inference with it."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentiment.errors import UserError
from sentiment.logs import progress
from sentiment.model.dropout import BatchPart, draw_per_channel, draw_per_token
from sentiment.model.lstm import LSTMLayers
from sentiment.model.ngram_branch import NGramBranch
from sentiment.model.pooling import Chunks, Pooling
from sentiment.params.model import ModelParams
from sentiment.tokens.batches import Batch, Truncation, iter_sorted_batches, prefetch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}

EMBEDDING_STD = 0.1
"""Standard deviation of the initial embeddings: small compared with the LSTM's weights, so that gates start
in the linear range of the sigmoid."""

INFERENCE_BATCH_SIZE = 64
"""The default batch size of training, so that inference needs no more memory than a training step."""

GPU_INFERENCE_BATCH_SIZE = 512
"""A GPU processes a batch of this size in about the time of a small one."""


class ModelInputs(NamedTuple):
    """Arguments of `SentimentClassifier.forward`, in the same order."""

    ids: Tensor
    lengths: Tensor
    """Number of tokens in each review; on the CPU, since the shapes of other tensors depend on it."""
    ngrams: tuple[Tensor, Tensor] | None
    part: BatchPart | None = None


def build_inputs(batch: Batch, device: torch.device) -> ModelInputs:
    """Convert a batch to tensors on a device; tensors on the CPU share memory with the batch."""
    ngrams = None
    if batch.ngrams is not None:
        ngrams = _to_tensor(batch.ngrams.indices, device), _to_tensor(batch.ngrams.offsets, device)
    part = None
    if batch.shard is not None:
        part = BatchPart(torch.from_numpy(batch.whole.lengths), batch.shard.start)
    return ModelInputs(_to_tensor(batch.ids, device), torch.from_numpy(batch.lengths), ngrams, part)


def _to_tensor(array: NDArray[np.int32 | np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


class SentimentClassifier(nn.Module):
    """Embedding, LSTM layers, pooling and head, with an optional n-gram branch (wide and deep).

    The logit of a review does not depend on the other reviews in its batch: padding has no effect on either
    direction of the LSTM.

    Args:
        params: architecture of the model.
        vocabulary_size: number of token ids.
        ngrams: n-gram branch; required if `params.ngrams` is set.
    """

    def __init__(self, params: ModelParams, vocabulary_size: int, ngrams: NGramBranch | None = None) -> None:
        super().__init__()
        self.params = params
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, params.embedding_dim, padding_idx=PADDING_ID)
        self.layers = LSTMLayers(params)
        self.pooling = Pooling(params.pooling, self.layers.output_units, params.hidden_units)
        self.head = _build_head(params, self.layers.output_units)
        self.ngrams = ngrams
        with torch.no_grad():
            self.embedding.weight.normal_(std=EMBEDDING_STD)
            self.embedding.weight[PADDING_ID] = 0

    @property
    def last_layer(self) -> str:
        """Name of the module whose output is the logit of the LSTM branch."""
        return f"head.{len(self.head) - 1}"

    @property
    def device(self) -> torch.device:
        """Device of the weights; the inputs must be on the same device."""
        return self.embedding.weight.device

    def forward(
        self,
        ids: Tensor,
        lengths: Tensor,
        ngrams: tuple[Tensor, Tensor] | None = None,
        part: BatchPart | None = None,
    ) -> Tensor:
        """Compute the logits of reviews.

        Args:
            ids: token ids, int64, shape (reviews, tokens), padded at the end.
            lengths: number of tokens in each review, shape (reviews,), preferably on the CPU, since the
                shapes of other tensors depend on it. An empty review counts as one padding token.
            ngrams: arguments of `NGramBranch.forward`; required if the model has an n-gram branch.
            part: the larger batch that the reviews are a part of, for which dropout masks are drawn; None if
                they are a whole batch.

        Returns:
            Logits, float32, shape (reviews,).

        Raises:
            ValueError: the model has an n-gram branch and `ngrams` is None.
        """
        return self.combine_branch_logits(self.compute_branch_logits(ids, lengths, ngrams, part))

    def compute_branch_logits(
        self,
        ids: Tensor,
        lengths: Tensor,
        ngrams: tuple[Tensor, Tensor] | None = None,
        part: BatchPart | None = None,
    ) -> Tensor:
        """Compute the logits of each branch: the LSTM and, if present, the n-gram branch.

        The training objective is the sum of the branches' losses, regardless of the branch weights. If it
        were the loss of the combined logits, the LSTM would get hardly any gradient, since the n-gram branch
        fits the training reviews within the first epoch.

        Args:
            ids: token ids, see `forward`.
            lengths: number of tokens in each review, see `forward`.
            ngrams: n-grams of the reviews, see `forward`.
            part: the larger batch that the reviews are a part of, see `forward`.

        Returns:
            Logits, float32, shape (branches, reviews).

        Raises:
            ValueError: the model has an n-gram branch and `ngrams` is None.
        """
        logits = [self._compute_lstm_logits(ids, lengths, part)]
        if self.ngrams is not None:
            if ngrams is None:
                raise ValueError("the model has an n-gram branch, but the batch has no n-grams")
            logits.append(self.ngrams(*ngrams))
        return torch.stack(logits)

    def combine_branch_logits(self, branch_logits: Tensor) -> Tensor:
        """Return the weighted mean of the branches' logits, shape (reviews,).

        Args:
            branch_logits: logits that `compute_branch_logits` returned, shape (branches, reviews).
        """
        if self.params.ngrams is None:
            return branch_logits[0]
        lstm_logits, ngram_logits = branch_logits
        return torch.lerp(lstm_logits, ngram_logits, self.params.ngrams.weight)

    def extract_ngrams(self, reviews: TokenizedReviews) -> ReviewNGrams | None:
        """Extract the vocabulary n-grams of reviews; return None if the model has no n-gram branch."""
        return None if self.ngrams is None else self.ngrams.vocabulary.extract(reviews)

    def _compute_lstm_logits(self, ids: Tensor, lengths: Tensor, part: BatchPart | None) -> Tensor:
        chunk_tokens = None if self.params.carry_state else self.params.chunk_tokens
        chunks = Chunks.split(lengths.clamp(min=1), chunk_tokens).to(ids.device)
        states = self.layers(self._embed(ids, chunks, part), chunks.lengths, part)
        pooled = self.pooling(states, chunks)
        if self.training and part is not None:
            pooled = part.drop_pooled(pooled, self.params.dropout.head)
            logits: Tensor = self.head[1:](pooled)
        else:
            logits = self.head(pooled)
        # Autocast computes them in bfloat16. A float64 model, with which tests compare, keeps its precision.
        return logits.squeeze(-1).to(torch.promote_types(logits.dtype, torch.float32))

    def _embed(self, ids: Tensor, chunks: Chunks, part: BatchPart | None) -> Tensor:
        """Return the embedded tokens after dropout, shape (tokens, chunks, embedding dimension)."""
        dropout = self.params.dropout
        if self.training and dropout.words:
            dropped = (draw_per_token(ids, part) < dropout.words) & (ids != PADDING_ID)
            ids = ids.masked_fill(dropped, UNKNOWN_ID)
        embedded: Tensor = self.embedding(chunks.gather_tokens(ids))
        if torch.is_autocast_enabled(ids.device.type):  # cast once instead of once per direction
            embedded = embedded.to(torch.get_autocast_dtype(ids.device.type))
        if self.training and dropout.embeddings:
            retained = draw_per_channel(ids, embedded.shape[2], part) >= dropout.embeddings
            embedded = embedded * chunks.expand_to_chunks(retained) / (1 - dropout.embeddings)
        return embedded


def _build_head(params: ModelParams, in_features: int) -> nn.Sequential:
    dropout = nn.Dropout(params.dropout.head)
    if params.head.units == 0:
        return nn.Sequential(dropout, nn.Linear(in_features, 1))
    hidden = nn.Linear(in_features, params.head.units)
    return nn.Sequential(
        dropout, hidden, ACTIVATIONS[params.head.activation](), nn.Linear(params.head.units, 1)
    )


DIRECTIONS = ("forward", "backward")


def get_layer_name(module: str) -> str:
    """Return the name of the layer that a parameter or submodule of the classifier belongs to.

    Args:
        module: dotted name of the parameter or submodule. `layers.0.directions.1.weight_ih_l0` belongs to
            `lstm_1_backward`; any other name belongs to its first component, such as `embedding` or `head`.
    """
    component, *subcomponents = module.split(".")
    if component != "layers":
        return component
    return f"lstm_{int(subcomponents[0]) + 1}_{DIRECTIONS[int(subcomponents[2])]}"


def predict_logits(
    model: SentimentClassifier,
    reviews: TokenizedReviews,
    description: str | None = "predict",
    ngrams: ReviewNGrams | None = None,
    part: tuple[int, int] = (0, 1),
) -> NDArray[np.float32]:
    """Compute the logits of reviews in evaluation mode, on the device of the model.

    Inference always runs in fp32, even if the model was trained in bf16, so that logits do not depend on the
    precision that a machine supports.

    Args:
        model: classifier, whose training mode is restored afterwards.
        reviews: reviews to classify; they are truncated as in training.
        description: label of the progress bar; None shows no bar.
        ngrams: n-grams of the reviews, as `model.extract_ngrams` returns them, for callers that predict the
            same reviews repeatedly; None extracts them.
        part: index of the first batch to compute, and the number of batches from one computed batch to the
            next; the logits of the other batches are 0.

    Returns:
        Logits, shape (reviews,), in the order of the reviews.

    Raises:
        UserError: a token id is not in the model's vocabulary.
    """
    check_token_ids(reviews, model.vocabulary_size, description or "reviews")
    truncation = Truncation(model.params.max_tokens, model.params.truncation)
    ngrams = model.extract_ngrams(reviews) if ngrams is None else ngrams
    logits = np.zeros(len(reviews), dtype=np.float32)
    was_training = model.training
    model.eval()
    on_gpu = model.device.type == "cuda"
    batch_size = GPU_INFERENCE_BATCH_SIZE if on_gpu else INFERENCE_BATCH_SIZE
    batches = iter_sorted_batches(reviews, truncation, batch_size, ngrams, part)
    if on_gpu:
        batches = prefetch(batches)
    if description is not None:
        batches = progress(batches, math.ceil(len(reviews) / batch_size / part[1]), description)
    with torch.inference_mode():
        for batch in batches:
            logits[batch.rows] = model(*build_inputs(batch, model.device)).cpu().numpy()
    model.train(was_training)
    return logits


def check_token_ids(reviews: TokenizedReviews, vocabulary_size: int, description: str) -> None:
    """Check that every token id is in a vocabulary.

    Args:
        reviews: reviews to check.
        vocabulary_size: size of the vocabulary, whose token ids start at 0.
        description: name of the reviews in the error message.

    Raises:
        UserError: a token id is negative or at least `vocabulary_size`.
    """
    if not len(reviews.ids):
        return
    lowest, highest = int(reviews.ids.min()), int(reviews.ids.max())
    if lowest < 0 or highest >= vocabulary_size:
        invalid = lowest if lowest < 0 else highest
        raise UserError(
            f"{description}: token id {invalid} is not in the model's vocabulary of {vocabulary_size} "
            "tokens; run `dvc repro` to rebuild tokens and model from the same vocabulary"
        )


def compute_probabilities(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the sigmoid of logits divided by a temperature, computed in float64 and without overflow."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float64) / temperature)).numpy()
