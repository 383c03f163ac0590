"""The Keras example of a bidirectional LSTM on IMDB, with the JAX backend.

Source: https://keras.io/examples/nlp/bidirectional_lstm_imdb/. Embedding, LSTM with the last state, a
sigmoid, Adam, padding to a fixed length, no mask. Sizes, layers and directions are those of the model in
params.yaml. JAX compiles the loop over the tokens: on two cores it was 18 times as fast as Keras's PyTorch
backend.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # read when keras is imported

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from bench.peers.fixed_length import fixed_length
from bench.peers.peer import BATCH_SIZE
from bench.training.task import Task
from sentiment.tokens.token_store import TokenizedReviews


class KerasPeer:
    """The example's model and training, on reviews padded in advance."""

    def __init__(self, task: Task) -> None:
        self.task = task
        keras.utils.set_random_seed(task.params.train.seed)
        self.model = _model(task)
        self.ids = fixed_length(task.reviews.train, task.truncation)
        self.labels = np.asarray(task.reviews.train.labels, dtype=np.float32)

    def train(self, rows: NDArray[np.int64]) -> None:
        """Train one epoch; an incomplete last batch is dropped, because it would be compiled separately."""
        whole = rows[: max(1, len(rows) // BATCH_SIZE) * BATCH_SIZE]
        self.model.fit(
            self.ids[whole], self.labels[whole], batch_size=BATCH_SIZE, epochs=1, shuffle=False, verbose=0
        )

    def score(self, reviews: TokenizedReviews) -> NDArray[np.floating]:
        """Return probabilities."""
        ids = fixed_length(reviews, self.task.truncation)
        scores: NDArray[np.floating] = self.model.predict(ids, batch_size=BATCH_SIZE, verbose=0)[:, 0]
        return scores


def _model(task: Task) -> keras.Model:
    sizes = task.params.model
    inputs = keras.Input(shape=(None,), dtype="int32")
    outputs = layers.Embedding(task.reviews.vocabulary_size, sizes.embedding_dim)(inputs)
    for layer in range(1, sizes.layers + 1):
        lstm = layers.LSTM(sizes.hidden_units, return_sequences=layer < sizes.layers)
        outputs = (layers.Bidirectional(lstm) if sizes.bidirectional else lstm)(outputs)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(outputs))
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model
