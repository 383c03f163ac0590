"""What all that is compared learns from: the same reviews, read to the same length."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sentiment.params import Params, load_params
from sentiment.params.train import ConstantSchedule
from sentiment.tokens.batches import TrainingData, Truncation
from sentiment.tokens.token_store import TokenizedReviews


@dataclass(frozen=True)
class Task:
    """The default data, and the parameters of the model that learns from it."""

    params: Params
    reviews: TrainingData

    @property
    def truncation(self) -> Truncation:
        """How long reviews are shortened."""
        return Truncation(self.params.model.max_tokens, self.params.model.truncation)

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return np.minimum(self.reviews.train.lengths, self.params.model.max_tokens)

    def tokens(self, rows: NDArray[np.int64]) -> int:
        """Return the tokens that training on these reviews once has to read: no padding, nothing cut off."""
        return int(self._lengths[rows].sum())

    def with_epochs(self, epochs: int) -> Self:
        """Return the task with a training of fewer epochs, which may be shorter than the schedule's warm-up.

        So the learning rate stays the same throughout, which takes neither more time nor more memory.
        """
        changes = {"epochs": epochs, "schedule": ConstantSchedule(kind="constant", warmup_steps=0)}
        train = self.params.train.model_copy(update=changes)
        return replace(self, params=self.params.model_copy(update={"train": train}))


@dataclass(frozen=True)
class Changes:
    """What a measurement has otherwise than `dvc repro`; None is the same.

    reviews: largest number of reviews per split, drawn at random. hidden_units: of the LSTM, per direction.
    """

    reviews: int | None = None
    hidden_units: int | None = None


def open_task(changes: Changes) -> Task:
    """Open what `dvc repro` tokenized, for the model in params.yaml."""
    opened = TrainingData.open()
    if changes.reviews is not None:
        rng = np.random.default_rng(0)
        train, validation = (
            taken(split, rng.permutation(len(split))[: changes.reviews])
            for split in (opened.train, opened.validation)
        )
        opened = replace(opened, train=train, validation=validation)
    params = load_params()
    on_cpu = params.train.model_copy(update={"device": "cpu"})  # where the peers are
    sizes = {} if changes.hidden_units is None else {"hidden_units": changes.hidden_units}
    params = params.model_copy(update={"train": on_cpu, "model": params.model.model_copy(update=sizes)})
    return Task(params, opened)


def taken(reviews: TokenizedReviews, rows: NDArray[np.int64]) -> TokenizedReviews:
    """Return some of the reviews, in memory."""
    return TokenizedReviews.from_lists([reviews[row].tolist() for row in rows], reviews.labels[rows])
