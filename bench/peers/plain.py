"""Training as in the PyTorch tutorials: random batches, 32-bit floats, `nn.LSTM`, Adam.

Embedding, LSTM and linear head have the sizes of the model in params.yaml, without n-gram branch and dropout.
States are max-pooled over the tokens, which learns faster than the last state.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from bench.peers.peer import BATCH_SIZE, LEARNING_RATE, batches_of
from bench.training.task import Task
from sentiment.tokens.batches import iter_sorted_batches
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID


class PlainLSTM(nn.Module):
    """Embedding, `nn.LSTM`, max pooling over the tokens, linear head.

    Args:
        task: the parameters and the data.
        packed: whether the LSTM reads packed sequences, without padding. Otherwise it reads padding too, the
            backward direction before the review. Max pooling excludes the states of padding in both cases.
    """

    def __init__(self, task: Task, packed: bool) -> None:
        super().__init__()
        sizes = task.params.model
        directions = 2 if sizes.bidirectional else 1
        self.packed = packed
        self.embedding = nn.Embedding(
            task.reviews.vocabulary_size, sizes.embedding_dim, padding_idx=PADDING_ID
        )
        self.lstm = nn.LSTM(
            sizes.embedding_dim,
            sizes.hidden_units,
            sizes.layers,
            batch_first=True,
            bidirectional=sizes.bidirectional,
        )
        self.head = nn.Linear(sizes.hidden_units * directions, 1)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits, shape (reviews,), for ids of shape (reviews, tokens), padded at the end."""
        embedded = self.embedding(ids)
        if self.packed:
            packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        else:
            states = self.lstm(embedded)[0]
        padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        pooled = states.masked_fill(padding[..., None], float("-inf")).amax(dim=1)
        return cast(Tensor, self.head(pooled)).squeeze(-1)


class PlainPeer:
    """A PlainLSTM and its training."""

    def __init__(self, task: Task, packed: bool) -> None:
        self.task = task
        torch.manual_seed(task.params.train.seed)
        self.model = PlainLSTM(task, packed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def train(self, rows: NDArray[np.int64]) -> None:
        """Train on these rows once."""
        torch.use_deterministic_algorithms(False)  # the training of this project leaves it on
        self.model.train()
        for batch in batches_of(rows):
            ids, lengths = self.padded(batch)
            labels = torch.from_numpy(self.task.reviews.train.labels[batch].astype(np.float32))
            self.optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(ids, lengths), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    def padded(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return ids, shape (reviews, tokens), padded at the end, and lengths, shape (reviews,)."""
        truncated = [
            torch.from_numpy(self.task.truncation(self.task.reviews.train[row]).astype(np.int64))
            for row in rows
        ]
        lengths = torch.tensor([len(ids) for ids in truncated])
        return pad_sequence(truncated, batch_first=True, padding_value=PADDING_ID), lengths

    def score(self, reviews: TokenizedReviews) -> NDArray[np.floating]:
        """Return logits."""
        logits = np.empty(len(reviews), dtype=np.float32)
        self.model.eval()
        with torch.inference_mode():
            for batch in iter_sorted_batches(reviews, self.task.truncation, BATCH_SIZE):
                outputs = self.model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths))
                logits[batch.rows] = outputs.numpy()
        return logits
