"""The reviews that a model learns from."""

from dataclasses import dataclass, field
from typing import Self

from sentiment import paths
from sentiment.tokens.store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer


@dataclass(frozen=True)
class LearningReviews:
    """What may teach a model or choose one; the test split is no part of it.

    vocabulary_size: entries of the vocabulary that all token ids are from.
    """

    vocabulary_size: int
    train: TokenizedReviews
    validation: TokenizedReviews
    unlabelled: TokenizedReviews = field(default_factory=lambda: TokenizedReviews.from_lists([], []))
    """Read where `train.unlabelled` says so; may be empty."""

    @classmethod
    def open(cls) -> Self:
        """Map what the stage tokenize wrote. Raises UserError where a file is missing, torn or empty."""
        train, validation = (TokenizedReviews.open(paths.tokens(split)) for split in paths.LEARNING_SPLITS)
        unlabelled = TokenizedReviews.open(paths.tokens("unlabelled"), labelled=False)
        return cls(load_tokenizer(paths.TOKENIZER).get_vocab_size(), train, validation, unlabelled)

    def used(self, *, unlabelled: bool) -> dict[paths.Split, TokenizedReviews]:
        """Return by name the splits that a training reads; unlabelled: whether it reads that one too."""
        splits: dict[paths.Split, TokenizedReviews] = {"train": self.train, "validation": self.validation}
        return {**splits, "unlabelled": self.unlabelled} if unlabelled else splits
