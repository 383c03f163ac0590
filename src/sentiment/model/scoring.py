"""Probabilities for reviews, as text or as tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.files import TOKENIZER, load_model
from sentiment.reviews.cleaning import normalized
from sentiment.tokens.batches import Cut, ordered_batches
from sentiment.tokens.encoding import encode_texts
from sentiment.tokens.store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer

SCORING_BATCH = 256
SERVED_FOLDER = "model"
"""Name under which a served model finds the folder that `Predictor.load` reads."""


def score(model: SentimentClassifier, reviews: TokenizedReviews) -> NDArray[np.float32]:
    """Return each review's logit, shape (reviews,), in the order of the reviews.

    Always in 32-bit floats, whatever the training precision: a score does not depend on the machine's.
    """
    cut = Cut(model.params.max_tokens, model.params.keep)
    logits = np.empty(len(reviews), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in ordered_batches(reviews, cut, SCORING_BATCH):
            outputs = model(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths))
            logits[batch.rows] = outputs.numpy()
    model.train(was_training)
    return logits


def probability(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sigmoid of logits, without overflow for any size of them."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float64))).numpy()


class Predictor:
    """A model and its tokenizer: raw text in, probability of a positive review out."""

    def __init__(self, model: SentimentClassifier, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder with weights, configuration and tokenizer.

        Raises UserError where a file is missing or torn, or the vocabulary is not the model's.
        """
        tokenizer, model = load_tokenizer(folder / TOKENIZER), load_model(folder)
        if tokenizer.get_vocab_size() != model.vocabulary_size:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} entries, "
                f"the model was trained with {model.vocabulary_size}"
            )
        return cls(model, tokenizer)

    def predict(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability that each text is positive, shape (texts,)."""
        ids = encode_texts(self.tokenizer, [normalized(text) for text in texts])
        unlabelled = np.zeros(len(ids), dtype=np.int8)
        return probability(score(self.model, TokenizedReviews.from_lists(ids, unlabelled)))
