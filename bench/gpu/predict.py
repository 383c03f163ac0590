"""Reviews per second of `Predictor`, from raw text to probability."""

import shutil
import statistics
from pathlib import Path

import numpy as np
import torch

from bench.bars import spread
from bench.gpu.context import Bench
from bench.gpu.packed import TOKENIZER, fewer
from bench.processes import seconds_of
from sentiment.model.model_files import save_model
from sentiment.model.predictor import Predictor
from sentiment.training.loop import fit

TURNS = 3
REVIEWS = 2_000
APART = 1e-3
"""Largest distance of a probability on the GPU from the CPU's; both compute in 32-bit floats."""


def measure(bench: Bench) -> None:
    """Predict validation reviews on the GPU and on the CPU, with the model that the part equality saved."""
    predictor = Predictor.load(_model(bench))
    texts = bench.pack.texts()
    found = {}
    for device in dict.fromkeys([bench.device, "cpu"]):
        predictor.model.to(device)
        found[device] = predictor.predict(texts)  # warms up too
        seconds = [seconds_of(predictor.predict, texts) for _ in range(TURNS)]
        rates = [len(texts) / each for each in seconds]
        bench.row(f"predict, reviews/s ({device})", f"{statistics.median(rates):,.0f}")
        bench.note(
            f"predict, {device}", {"reviews": len(texts), "seconds": seconds, "summary": spread(seconds)}
        )
    if bench.on_gpu:
        apart = float(np.abs(found[bench.device] - found["cpu"]).max())
        bench.row(
            "largest difference from the CPU's probability", f"{apart:.1e}", f"≤ {APART}", apart <= APART
        )


def _model(bench: Bench) -> Path:
    """Return the folder of a trained model; where there is none, train one for an epoch."""
    folder = bench.folder / "model"
    if not (folder / TOKENIZER).exists():
        short = {"train.epochs": 1, "train.schedule": {"kind": "constant", "warmup_steps": 0}}
        model, train = bench.pack.configuration(short, device=bench.device)
        fitted = fit(model, train, fewer(bench.pack.learning(), REVIEWS, REVIEWS), on_epoch=lambda _: None)
        save_model(folder, fitted.model)
        shutil.copyfile(bench.pack.folder / TOKENIZER, folder / TOKENIZER)
        torch.use_deterministic_algorithms(False)
    return folder
