"""Tokens per second of this project's training and of its peers, by turns in one process."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.peers.peer import BATCH_SIZE, Peer
from bench.peers.plain import PlainPeer
from bench.peers.products import LSTMProducts
from bench.processes import seconds_of
from bench.training.own import train_logged
from bench.training.phases import Phases, timed_phases
from bench.training.task import Task, open_task, taken
from sentiment.progress import say
from sentiment.tokens.batches import BUCKET_BATCHES
from sentiment.training.precision import resolve_precision

OWN = "this project"
PACKED, PADDED, KERAS, PRODUCTS = "PyTorch, packed", "PyTorch, padded", "Keras, JAX", "matrix products"
STEPS = {PACKED: 2, PADDED: 8, KERAS: 20, PRODUCTS: 20}
"""Steps of each in a turn: a few seconds on two cores. This project takes a whole bucket of like lengths."""
VALIDATION = 200
"""Reviews scored after this project's turn: `fit` asks for some. The figures leave the scoring out."""


@dataclass(frozen=True)
class Turn:
    """One turn of each, on the same random reviews; who takes fewer takes the first of them.

    rates: real tokens per second by name. phases: seconds that this project spent in forward, backward and
    step, of `seconds` in all.
    """

    rates: dict[str, float]
    phases: Phases
    seconds: float


def measure_speed(turns: int, reviews: int | None) -> list[Turn]:
    """Take so many turns, after a short one that warms up; reviews: as for `open_task`."""
    from bench.peers.keras_lstm import KerasPeer  # of the extra `bench`: tests do without

    task = open_task(reviews)
    rng = np.random.default_rng(0)
    peers: dict[str, Peer] = {
        PACKED: PlainPeer(task, packed=True),
        PADDED: PlainPeer(task, packed=False),
        KERAS: KerasPeer(task),
    }
    products = _products(task)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        _turn(task, rng.permutation(len(task.reviews.train))[:BATCH_SIZE], peers, products, Path(folder))
        measured = []
        for number in range(1, turns + 1):
            rows = rng.permutation(len(task.reviews.train))
            measured.append(_turn(task, rows, peers, products, Path(folder)))
            rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in measured[-1].rates.items())
            say(f"turn {number} of {turns}, tokens/s: {rates}")
    return measured


def _turn(
    task: Task, rows: NDArray[np.int64], peers: Mapping[str, Peer], products: LSTMProducts, folder: Path
) -> Turn:
    own_rows = rows[: BUCKET_BATCHES * task.params.train.batch_size]
    with timed_phases() as phases:
        (cost,) = train_logged(_one_epoch(task, own_rows), folder)
    rates = {OWN: task.tokens(own_rows) / cost.seconds}
    for name, peer in peers.items():
        part = rows[: STEPS[name] * BATCH_SIZE]
        rates[name] = task.tokens(part) / seconds_of(peer.train, part)
    rates[PRODUCTS] = products.rate(STEPS[PRODUCTS])
    return Turn(rates, phases, cost.seconds)


def _one_epoch(task: Task, rows: NDArray[np.int64]) -> Task:
    """Return a task of one epoch over some of the reviews."""
    scored = np.random.default_rng(0).permutation(len(task.reviews.validation))[:VALIDATION]
    train, validation = taken(task.reviews.train, rows), taken(task.reviews.validation, scored)
    return replace(
        task.cut_short(epochs=1), reviews=replace(task.reviews, train=train, validation=validation)
    )


def _products(task: Task) -> LSTMProducts:
    """Return the products of one step of this project's training, all of its tokens real ones."""
    model, train = task.params.model, task.params.train
    review = task.tokens(np.arange(len(task.reviews.train))) / len(task.reviews.train)
    words = model.chunk_tokens or round(review)
    sequences = round(train.batch_size * review / words)
    return LSTMProducts(
        model, sequences, words, resolve_precision(train.precision, torch.device(train.device))
    )
