"""Prediction from raw text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier, compute_probabilities, predict_logits
from sentiment.model.model_config import TOKENIZER_FILE, load_config
from sentiment.model.model_files import load_model
from sentiment.text import normalize_text
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import TextEncoder, load_tokenizer

SERVED_FOLDER = "model"
"""Name of the folder among the MLflow model's artifacts that `Predictor.load` reads."""


@dataclass(frozen=True)
class EncodedTexts:
    """Texts converted to inputs of the model."""

    tokens: TokenizedReviews
    """Token ids of the texts. The labels, which are all 0, have no meaning."""
    ngrams: ReviewNGrams | None
    """Vocabulary n-grams of the texts; None if the model has no n-gram branch."""


class Predictor:
    """A model and its tokenizer: maps raw text to the calibrated probability of a positive review.

    Args:
        model: trained model.
        tokenizer: tokenizer that the model was trained with.
        temperature: number by which logits are divided before the sigmoid.
    """

    def __init__(self, model: SentimentClassifier, tokenizer: Tokenizer, temperature: float = 1.0) -> None:
        self.model = model
        self.temperature = temperature
        self._encode_texts = TextEncoder(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a model and its tokenizer from the folder that `export_model` writes.

        Raises:
            UserError: a file is missing or corrupt, or the tokenizer and the model differ in vocabulary size.
        """
        tokenizer, model = load_tokenizer(folder / TOKENIZER_FILE), load_model(folder)
        if tokenizer.get_vocab_size() != model.vocabulary_size:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, "
                f"but the model was trained with {model.vocabulary_size}"
            )
        return cls(model, tokenizer, load_config(folder).calibration.temperature)

    def predict(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability that each text is positive, shape (texts,).

        A probability does not depend on the other texts, except for rounding errors that vary with the batch
        size.
        """
        return self.predict_encoded(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Convert texts to inputs of the model; another thread may predict at the same time."""
        ids = self._encode_texts([normalize_text(text) for text in texts])
        tokens = TokenizedReviews.from_lists(ids, np.zeros(len(ids), dtype=np.int8))
        return EncodedTexts(tokens, self.model.extract_ngrams(tokens))

    def predict_encoded(self, texts: EncodedTexts) -> NDArray[np.float64]:
        """Return the probability that each text of the result of `encode` is positive, shape (texts,)."""
        logits = predict_logits(self.model, texts.tokens, description=None, ngrams=texts.ngrams)
        return compute_probabilities(logits, self.temperature)
