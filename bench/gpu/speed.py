"""Tokens per second of a training step, beside cuDNN's LSTM of the same shapes; how long the GPU idles."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.bars import spread
from bench.gpu.configurations import load_configurations
from bench.gpu.context import Bench
from bench.gpu.gpu_time import gpu_time
from bench.training.phases import timed_phases
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import fit_ngram_branch
from sentiment.model.pooling import Chunks
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import Batch, TrainingData, Truncation, iter_shuffled_batches, prefetch
from sentiment.tokens.ngram_features import ReviewNGrams
from sentiment.training.loop import take_step
from sentiment.training.runtime import Precision, configure_allocator, resolve_precision
from sentiment.training.state import TrainingState

OWN, BARE, SPLIT = "training step", "bare LSTM", "bare LSTM, a direction at a time"
BAR = 0.8
TURNS, STEPS = 7, 20
"""Steps of each per turn, on the same batches; the median of the turns' ratios is held."""


def measure(bench: Bench) -> None:
    """Measure the parameters of params.yaml and those of the configuration whose speed is evaluated."""
    configure_allocator()
    torch.use_deterministic_algorithms(True)  # as in training
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    file = load_configurations()
    learning = bench.pack.learning()
    for name, changes in {"params.yaml": {}, file.speed.name: file.speed.changes}.items():
        with bench.guarded(f"speed, {name}"):
            _measure(bench, name, Own(bench, changes, learning))


def _measure(bench: Bench, name: str, own: "Own") -> None:
    steps = {
        OWN: own.step,
        BARE: Bare(own.model_params, own.precision, bench.device, split=False).step,
        SPLIT: Bare(own.model_params, own.precision, bench.device, split=True).step,
    }
    batches = list(itertools.islice(own.batches(), own.steps))
    tokens = sum(batch.tokens for batch in batches)
    turns = [
        {what: tokens / _seconds(step, batches, bench.device) for what, step in steps.items()}
        for _ in range((TURNS if bench.on_gpu else 2) + 1)
    ][1:]  # the first one warms up
    ratios = [turn[OWN] / turn[BARE] for turn in turns]
    holds = float(np.median(ratios)) >= BAR
    bench.gpu_row(f"training step, times a bare LSTM ({name})", spread(ratios), f"≥ {BAR}", holds)
    for what in steps:
        rate = float(np.median([turn[what] for turn in turns]))
        bench.row(f"{what}, tokens/s ({name})", f"{rate:,.0f}")
    bench.note(f"speed, {name}", {"tokens_per_second": turns, "precision": own.precision})
    bench.row(f"share of an epoch outside the GPU ({name})", f"{_outside(bench, name, own):.2f}")


def _seconds(step: Callable[[Batch], None], batches: Sequence[Batch], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _outside(bench: Bench, name: str, own: "Own") -> float:
    """Return the share of some steps, data included, in which no kernel runs.

    On the CPU: outside forward, backward and the optimizer's step.
    """

    def epoch() -> None:
        for batch in itertools.islice(own.batches(), 3 * own.steps):
            own.step(batch)

    started = time.perf_counter()
    if not bench.on_gpu:
        with timed_phases() as phases:
            epoch()
        return 1 - phases.seconds / (time.perf_counter() - started)
    epoch()
    _wait(bench.device)
    seconds = time.perf_counter() - started
    busy = gpu_time(epoch)  # profiled apart: the profiler itself takes time
    bench.note(f"kernels, {name}", {"seconds": seconds, "busy": busy.seconds, "milliseconds": busy.kernels})
    return 1 - busy.seconds / seconds


@dataclass
class Own:
    """This project's training: its own batches and steps."""

    bench: Bench
    changes: dict[str, Any]
    learning: TrainingData

    def __post_init__(self) -> None:
        params = self.bench.pack.configuration(self.changes, device=self.bench.device)
        self.model_params: ModelParams = params[0]
        self.params: TrainParams = params[1]
        self.precision: Precision = resolve_precision(self.params.precision, torch.device(self.bench.device))
        self.steps = STEPS if self.bench.on_gpu else 2
        self.ngrams: ReviewNGrams | None = None
        part = None
        if self.model_params.ngrams:
            part, self.ngrams = fit_ngram_branch(self.learning.train, self.model_params.ngrams)
        torch.manual_seed(self.params.seed)
        model = SentimentClassifier(self.model_params, self.learning.vocabulary_size, part)
        self.state = TrainingState.create(
            model.to(self.bench.device),
            self.params,
            math.ceil(len(self.learning.train) / self.params.batch_size),
        )

    def batches(self) -> Iterator[Batch]:
        """Return an epoch's batches as `fit` takes them, the same at each call."""
        truncation = Truncation(self.model_params.max_tokens, self.model_params.truncation)
        order = np.random.default_rng(self.params.seed)
        batches = iter_shuffled_batches(
            self.learning.train, truncation, self.params.batch_size, order, self.ngrams
        )
        return prefetch(batches) if self.bench.on_gpu else batches

    def step(self, batch: Batch) -> None:
        """Take a training step at a small learning rate, with the exponential moving average."""
        step = take_step(self.state, batch, 1e-5, self.precision)
        self.state.record_step(step, 0.0)


class Bare:
    """`nn.LSTM` forward and backward over random inputs, in the shape that this project reads a batch in.

    split: the two directions after one another, as this project reads them, not in one call. What it loses
    against one call is what reading both side by side would gain.
    """

    def __init__(self, params: ModelParams, precision: Precision, device: str, *, split: bool) -> None:
        self.params = params
        self.device, self.kind = device, torch.bfloat16 if precision == "bf16" else torch.float32
        calls = 2 if split and params.bidirectional else 1
        self.lstms = [
            nn.LSTM(
                params.embedding_dim,
                params.hidden_units,
                params.layers,
                bidirectional=params.bidirectional and calls == 1,
                device=device,
                dtype=self.kind,
            )
            for _ in range(calls)
        ]
        self._inputs: dict[int, Tensor] = {}

    def step(self, batch: Batch) -> None:
        """Read as many tokens in as many chunks as the batch has, padding included."""
        inputs = self._inputs_for(batch)
        for lstm in self.lstms:
            states, _ = lstm(inputs)
            states.backward(torch.ones_like(states))
            lstm.zero_grad()
        inputs.grad = None

    def _inputs_for(self, batch: Batch) -> Tensor:
        """Return random inputs of the batch's shape, drawn in the turn that warms up."""
        if id(batch) not in self._inputs:
            lengths = torch.from_numpy(batch.lengths).clamp(min=1)
            chunks = Chunks.split(lengths, None if self.params.carry_state else self.params.chunk_tokens)
            shape = chunks.max_length, len(chunks.lengths), self.params.embedding_dim
            self._inputs[id(batch)] = torch.randn(
                shape, device=self.device, dtype=self.kind, requires_grad=True
            )
        return self._inputs[id(batch)]
