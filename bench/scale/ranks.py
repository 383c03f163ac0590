"""Data-parallel training: what a second rank gains, and how far its results are from those of one process.

Each rank has one core. The trainings are those of params.yaml on a sample of its reviews. As
`python -m bench.scale.ranks`, this module is one rank, which `start_ranks` starts.
"""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bench.bars import Bar, at_least
from bench.training.task import Changes, Task, open_task
from sentiment.params.train import SGD, AdamW
from sentiment.settings import set_environment
from sentiment.training.launch import join_ranks, start_ranks
from sentiment.training.loop import fit

logger = logging.getLogger(__name__)

TURNS = 3
SPEED_REVIEWS = 12_000
"""More reviews make an epoch in which the update ratios of 20 steps take a small part of the time."""

SPEED_BATCHES = (64, 128, 256)
"""Reviews of a batch: that of params.yaml, and a larger one, of which each of two ranks has as many as one
process has of the other."""

EQUALITY_STEPS = 50
MOST_SGD_DIFFERENCE = 1e-10

FOLDER, SIZE, JOBS = "BENCH_RANKS_FOLDER", "BENCH_RANKS_SIZE", "BENCH_RANKS_JOBS"
"""Environment variables of a rank: the folder for results, the number of ranks, and what they train."""

SPEED = "speed-"
"""Prefix of the jobs that measure speed, before the size of the batches; the others name an optimizer."""

OPTIMIZERS = {
    "sgd": SGD(kind="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.0, l1=0.0),
    "adamw": AdamW(kind="adamw", learning_rate=2e-3, weight_decay=0.0, l1=0.0),
}


def ranks_bars() -> list[Bar]:
    """Train with one rank and with two, in turns, and then with both on equal batches."""
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as name:
        folder = Path(name)
        gains: dict[int, list[float]] = {batch: [] for batch in SPEED_BATCHES}
        print("\n| turn | batch | one rank, tokens/s | two ranks, tokens/s | ratio |")
        print("| --- | --- | --- | --- | --- |")
        for turn in range(1, TURNS + 1):
            for batch in SPEED_BATCHES:
                one, two = (_measure_speed(folder, size, batch) for size in (1, 2))
                gains[batch].append(two / one)
                print(f"| {turn} | {batch} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |", flush=True)
        for size in (1, 2):
            _run(folder, size, *OPTIMIZERS)
        differences = {optimizer: _compare(folder, optimizer) for optimizer in OPTIMIZERS}
    steps = f"largest difference of a weight after {EQUALITY_STEPS} steps"
    return [
        *(
            at_least(f"two one-core ranks against one, batches of {batch}, tokens/s", ratios, 1.5)
            for batch, ratios in gains.items()
        ),
        Bar(
            f"two ranks against one, {steps} of SGD in float64",
            f"{differences['sgd']:.1e}",
            f"≤ {MOST_SGD_DIFFERENCE:g}",
            differences["sgd"] <= MOST_SGD_DIFFERENCE,
        ),
        Bar(f"two ranks against one, {steps} of AdamW in fp32", f"{differences['adamw']:.1e}", "", None),
    ]


def _measure_speed(folder: Path, size: int, batch: int) -> float:
    _run(folder, size, f"{SPEED}{batch}")
    return float((folder / f"{SPEED}{batch}-{size}").read_text())


def _compare(folder: Path, optimizer: str) -> float:
    """Return the largest absolute difference between the weights that one and two ranks have trained."""
    one, two = (load_file(folder / f"{optimizer}-{size}.safetensors") for size in (1, 2))
    return max(float((weight - two[name]).abs().max()) for name, weight in one.items())


def _run(folder: Path, size: int, *jobs: str) -> None:
    """Let a number of ranks train what the jobs name."""
    with set_environment(**{FOLDER: str(folder), SIZE: str(size), JOBS: " ".join(jobs)}):
        start_ranks("bench.scale.ranks", size)


def run_rank() -> None:
    """Train as one of the ranks, on a core of its own."""
    folder, size, jobs = Path(os.environ[FOLDER]), int(os.environ[SIZE]), os.environ[JOBS].split()
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    task = open_task(Changes()).with_epochs(1)
    with join_ranks(_configure(task, size, {}).params.train) as ranks:
        for job in jobs:
            changes: dict[str, Any]
            if job.startswith(SPEED):
                reviews, changes = SPEED_REVIEWS, {"batch_size": int(job.removeprefix(SPEED))}
            else:
                reviews = EQUALITY_STEPS * task.params.train.batch_size
                changes = {"optimizer": OPTIMIZERS[job], "precision": "fp32"}
            configured = _configure(open_task(Changes(reviews=reviews)).with_epochs(1), size, changes)
            torch.set_default_dtype(torch.float64 if job == "sgd" else torch.float32)
            params = configured.params
            result = fit(params.model, params.train, configured.reviews, lambda _: None, job, ranks=ranks)
            if ranks.is_main and job.startswith(SPEED):
                (folder / f"{job}-{size}").write_text(repr(result.best.tokens_per_second))
            elif ranks.is_main:
                save_file(result.model.state_dict(), folder / f"{job}-{size}.safetensors")


def _configure(task: Task, ranks: int, changes: Mapping[str, Any]) -> Task:
    """Return a task of ranks with one thread each, with changes of the section `train`."""
    train = task.params.train.model_copy(update={"ranks": ranks, "threads": 1, "device": "cpu", **changes})
    return Task(task.params.model_copy(update={"train": train}), task.reviews)


if __name__ == "__main__":
    run_rank()
