"""From raw text to probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentiment.errors import UserError
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import TOKENIZER, load_model
from sentiment.model.scoring import probability, score
from sentiment.text import normalize_text
from sentiment.tokens.encoding import TextEncoder
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer

SERVED_FOLDER = "model"
"""Name under which a served model finds the folder that `Predictor.load` reads."""


class Predictor:
    """A model and its tokenizer: raw text in, probability of a positive review out."""

    def __init__(self, model: SentimentClassifier, tokenizer: Tokenizer) -> None:
        self.model = model
        self._encode_texts = TextEncoder(tokenizer)

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
        """Return the probability that each text is positive, shape (texts,).

        It depends on no other text, but for the rounding of sums in batches of another size.
        """
        return self.predict_encoded(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> "EncodedTexts":
        """Return what the model reads of each text; a thread can do so while another one scores."""
        ids = self._encode_texts([normalize_text(text) for text in texts])
        tokens = TokenizedReviews.from_lists(ids, np.zeros(len(ids), dtype=np.int8))
        return EncodedTexts(tokens, self.model.find_ngrams(tokens))

    def predict_encoded(self, texts: "EncodedTexts") -> NDArray[np.float64]:
        """Return the probability that each text is positive, shape (texts,), of what `encode` returned."""
        return probability(score(self.model, texts.tokens, description=None, ngrams=texts.ngrams))


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as a model reads them; ngrams: None where it reads none."""

    tokens: TokenizedReviews
    ngrams: ReviewNGrams | None
