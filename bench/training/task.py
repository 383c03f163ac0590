"""The data and parameters that this project and its peers train with."""

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
    """The tokenized data and the parameters of params.yaml."""

    params: Params
    reviews: TrainingData

    @property
    def truncation(self) -> Truncation:
        """Truncation of the reviews."""
        return Truncation(self.params.model.max_tokens, self.params.model.truncation)

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return np.minimum(self.reviews.train.lengths, self.params.model.max_tokens)

    def tokens(self, rows: NDArray[np.int64]) -> int:
        """Return the number of tokens of these reviews after truncation, without padding."""
        return int(self._lengths[rows].sum())

    def with_epochs(self, epochs: int) -> Self:
        """Return a task with fewer epochs, and a constant learning rate.

        The training may be shorter than the warm-up of the schedule, and a constant rate takes equal time and
        memory.
        """
        changes = {"epochs": epochs, "schedule": ConstantSchedule(kind="constant", warmup_steps=0)}
        train = self.params.train.model_copy(update=changes)
        return replace(self, params=self.params.model_copy(update={"train": train}))


@dataclass(frozen=True)
class Changes:
    """Differences of a measurement from `dvc repro`; None changes nothing."""

    reviews: int | None = None
    """Maximum number of reviews per split, drawn at random."""
    hidden_units: int | None = None
    """Hidden units of the LSTM, per direction."""


def open_task(changes: Changes) -> Task:
    """Open the tokens of `dvc repro`, for the model in params.yaml."""
    opened = TrainingData.open()
    if changes.reviews is not None:
        rng = np.random.default_rng(0)
        train, validation = (
            taken(split, rng.permutation(len(split))[: changes.reviews])
            for split in (opened.train, opened.validation)
        )
        opened = replace(opened, train=train, validation=validation)
    params = load_params()
    on_cpu = params.train.model_copy(update={"device": "cpu"})  # as the peers
    sizes = {} if changes.hidden_units is None else {"hidden_units": changes.hidden_units}
    params = params.model_copy(update={"train": on_cpu, "model": params.model.model_copy(update=sizes)})
    return Task(params, opened)


def taken(reviews: TokenizedReviews, rows: NDArray[np.int64]) -> TokenizedReviews:
    """Return a subset of the reviews, in memory."""
    return TokenizedReviews.from_lists([reviews[row].tolist() for row in rows], reviews.labels[rows])
