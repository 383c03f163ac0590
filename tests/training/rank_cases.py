"""Trainings that tests run in one process and, by `python -m tests.training.rank_cases`, in ranks."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from sentiment.errors import TrainingDivergedError
from sentiment.files import write_text
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training import loop
from sentiment.training.checkpoint import open_checkpoint
from sentiment.training.launch import join_ranks
from sentiment.training.loop import TrainingResult
from sentiment.training.ranks import Ranks
from sentiment.training.self_training import fit_with_self_training
from tests.model.small_model import model_params
from tests.training.test_loop import NGRAMS, TRAIN

RANKS = 2
FOLDER, CASES = "RANK_CASES_FOLDER", "RANK_CASES"
"""Environment variables: the folder for results, and the names of the cases to run."""

SGD = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "l1": 1e-4}
DROPOUT = {"words": 0.2, "embeddings": 0.2, "layers": 0.3, "head": 0.3}
EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "norm": ({"pooling": "attention"}, {"clip": {"kind": "norm", "threshold": 0.05}}),
    "percentile": (
        {"layers": 2, "chunk_tokens": 8, "dropout": DROPOUT},
        {"clip": {"kind": "percentile", "percentile": 30}},
    ),
    "adaptive": (
        {"layers": 2, "chunk_tokens": 8, "carry_state": True, "dropout": DROPOUT},
        {"clip": {"kind": "adaptive", "threshold": 0.01}},
    ),
    "value": (
        {"ngrams": NGRAMS, "dropout": DROPOUT},
        {"clip": {"kind": "value", "threshold": 1e-3}, "ema_decay": 0.9},
    ),
    "self_training": ({"bidirectional": False}, {"clip": {"kind": "none"}, "unlabelled": "self_training"}),
}
"""Changes of model and training, by clipping kind. They are trained in float64 for 50 steps of SGD."""

ADAMW: dict[str, Any] = {
    "optimizer": {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "l1": 0.0},
    "ema_decay": 0.9,
}
LONG = {**ADAMW, "epochs": 30}
"""A training of some seconds, so that a test can kill what trains after its first epoch."""
KILLED_STEP = 15


def build_reviews() -> TrainingData:
    """Return synthetic reviews; the last of ten batches of 16 has a single one, so that a rank has none."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> TokenizedReviews:
        labels = [row % 2 for row in range(count)]
        ids = [(2 + rng.integers(0, 40, rng.integers(1, 30)) + 20 * label).tolist() for label in labels]
        return TokenizedReviews.from_lists(ids, labels)

    return TrainingData(70, draw(145), draw(150), draw(30))


def fit(
    ranks: Ranks, model: dict[str, Any], changes: dict[str, Any], checkpoints: Path | None = None
) -> TrainingResult:
    """Train a small classifier; with a folder of checkpoints, rank 0 writes one after each step."""
    params = TrainParams.model_validate({**TRAIN, "ranks": ranks.size, **changes})
    arguments = (model_params(**model), params, build_reviews(), lambda _: None)
    if checkpoints is None or not ranks.is_main:
        return fit_with_self_training(*arguments, ranks=ranks)
    with open_checkpoint(checkpoints, "key", minutes=1e-9) as checkpoint:
        return fit_with_self_training(*arguments, checkpoint=checkpoint, ranks=ranks)


def fit_in_float64(ranks: Ranks, name: str) -> TrainingResult:
    """Train one of the cases in EQUAL."""
    model, changes = EQUAL[name]
    torch.set_default_dtype(torch.float64)
    try:
        return fit(ranks, model, {"optimizer": SGD, "epochs": 5, **changes})
    finally:
        torch.set_default_dtype(torch.float32)


def _fit_with_nan(ranks: Ranks, folder: Path) -> None:
    """Train with a gradient that is not a number on the last rank; write the error that each rank raises."""
    run_backward = loop._run_backward

    def break_gradient(*arguments: Any) -> list[torch.Tensor]:
        scalars = run_backward(*arguments)
        if ranks.rank == ranks.size - 1:
            arguments[0].head[1].weight.grad.fill_(float("nan"))
        return scalars

    loop._run_backward = break_gradient  # type: ignore[assignment]
    try:
        fit(ranks, {}, {})
    except TrainingDivergedError as error:
        write_text(folder / f"error-{ranks.rank}.txt", str(error))
    finally:
        loop._run_backward = run_backward


def _kill_last_rank_once(ranks: Ranks, folder: Path) -> None:
    """Let the last rank kill itself after a number of steps, the first time that this is called."""
    take_step, steps = loop.take_step, iter(range(1, 10**6))
    marker = folder / "killed"

    def take_step_and_kill(*arguments: Any) -> Any:
        step = take_step(*arguments)
        if next(steps) == KILLED_STEP and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step

    if ranks.rank == ranks.size - 1:
        loop.take_step = take_step_and_kill  # type: ignore[assignment]


def main() -> None:
    folder, names = Path(os.environ[FOLDER]), os.environ[CASES].split()
    with join_ranks(TrainParams.model_validate({**TRAIN, "ranks": RANKS})) as ranks:
        for name in names:
            match name:
                case "nan":
                    _fit_with_nan(ranks, folder)
                    continue
                case "killed":
                    _kill_last_rank_once(ranks, folder)
                    result = fit(ranks, {"dropout": DROPOUT}, ADAMW, folder / "checkpoints")
                case "uninterrupted":
                    result = fit(ranks, {"dropout": DROPOUT}, ADAMW)
                case "long":
                    result = fit(ranks, {"dropout": DROPOUT}, LONG)
                case _:
                    result = fit_in_float64(ranks, name)
            if ranks.is_main:
                write_text(folder / f"{name}.json", str(result.best.validation_auc))
                save_file(result.model.state_dict(), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
