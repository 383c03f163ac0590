"""Tokens per second of training in this project and its peers, measured in turns.

Each has its own process, since this project configures the memory allocator and the tutorials do not.
"""

import logging
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.peers.peer import BATCH_SIZE, Peer
from bench.peers.plain import PlainPeer
from bench.peers.products import LSTMProducts
from bench.processes import Resident, seconds_of
from bench.training.own import train_logged
from bench.training.phases import Phases, timed_phases
from bench.training.task import Changes, Task, open_task, taken
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.runtime import resolve_precision

logger = logging.getLogger(__name__)


OWN = "this project"
PACKED, PADDED, KERAS, PRODUCTS = "PyTorch, packed", "PyTorch, padded", "Keras, JAX", "matrix products"
STEPS = {PACKED: 3, PADDED: 16, KERAS: 20, PRODUCTS: 40}
"""Steps per turn: a few seconds on two cores. This project trains a whole epoch."""
VALIDATION = 200
"""Validation reviews, which `fit` requires. The measurements leave validation out."""


@dataclass(frozen=True)
class Turn:
    """One turn of each, on the same random reviews; those with fewer steps use the first of them."""

    rates: dict[str, float]
    """Tokens per second without padding, by name."""
    phases: Phases
    """Phases of this project's epoch."""
    seconds: float
    """Duration of this project's epoch."""


def measure_speed(turns: int, changes: Changes) -> list[Turn]:
    """Measure a number of turns, after a short warm-up."""
    with ExitStack() as stack:
        own = stack.enter_context(Resident(Own, changes))
        others = {name: stack.enter_context(Resident(make, name, changes)) for name, make in OTHERS.items()}
        measured = []
        for number in range(turns + 1):
            phases, seconds, rate = own(number)
            rates = {OWN: rate, **{name: other(number) for name, other in others.items()}}
            if number:  # the first one compiles
                measured.append(Turn(rates, phases, seconds))
            rates_text = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
            logger.info(f"turn {number} of {turns}, tokens/s: {rates_text}")
    return measured


class Own:
    """Training of this project on all reviews: a whole epoch, with all work per epoch."""

    def __init__(self, changes: Changes) -> None:
        self.task = open_task(changes)

    def __call__(self, number: int) -> tuple[Phases, float, float]:
        """Train an epoch; return its phases, its duration in seconds, and tokens per second."""
        train = self.task.reviews.train
        if not number:
            train = taken(train, np.arange(BATCH_SIZE))
        with tempfile.TemporaryDirectory(prefix="bench-train-") as folder, timed_phases() as phases:
            (cost,) = train_logged(_one_epoch(self.task, train), Path(folder))
        tokens = int(np.minimum(train.lengths, self.task.params.model.max_tokens).sum())
        return phases, cost.seconds, tokens / cost.seconds


class Other:
    """Training of a peer."""

    def __init__(self, name: str, changes: Changes) -> None:
        self.name, self.task = name, open_task(changes)
        self.peer = self._peer()

    def _peer(self) -> Peer:
        if self.name != KERAS:
            return PlainPeer(self.task, packed=self.name == PACKED)
        from bench.peers.keras_lstm import KerasPeer  # from the optional extra `bench`

        return KerasPeer(self.task)

    def __call__(self, number: int) -> float:
        """Run one turn; return tokens per second."""
        rows = _rows(self.task, number)[: STEPS[self.name] * BATCH_SIZE]
        return self.task.tokens(rows) / seconds_of(self.peer.train, rows)


class Products:
    """The matrix products of a training step of this project, without padding."""

    def __init__(self, name: str, changes: Changes) -> None:
        task = open_task(changes)
        model, train = task.params.model, task.params.train
        review = task.tokens(np.arange(len(task.reviews.train))) / len(task.reviews.train)
        words = model.chunk_tokens or round(review)
        sequences = round(train.batch_size * review / words)
        precision = resolve_precision(train.precision, torch.device(train.device))
        self.steps, self.products = STEPS[name], LSTMProducts(model, sequences, words, precision)

    def __call__(self, number: int) -> float:
        """Run one turn; return tokens per second."""
        return self.products.rate(self.steps)


OTHERS: dict[str, Callable[..., Callable[[int], float]]] = {
    PACKED: Other,
    PADDED: Other,
    KERAS: Other,
    PRODUCTS: Products,
}


def _rows(task: Task, number: int) -> NDArray[np.int64]:
    """Return the rows of a turn in random order, equal for all."""
    return np.random.default_rng(number).permutation(len(task.reviews.train))


def _one_epoch(task: Task, train: TokenizedReviews) -> Task:
    """Return a task that trains one epoch on these reviews."""
    scored = np.random.default_rng(0).permutation(len(task.reviews.validation))[:VALIDATION]
    validation = taken(task.reviews.validation, scored)
    return replace(
        task.with_epochs(epochs=1), reviews=replace(task.reviews, train=train, validation=validation)
    )
