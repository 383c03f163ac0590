"""What decides the result of a training run, as one key."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.learning import LearningReviews
from sentiment.training.device import resolve_device
from sentiment.training.precision import resolve_precision

PACKAGE = Path(__file__).parents[1]

DECIDING = ("params", "tokens", "model", "training")
"""Parts of the package whose code decides the weights; reviews has done its work once there are tokens."""


def training_key(
    model: ModelParams,
    params: TrainParams,
    reviews: LearningReviews,
    package: Path = PACKAGE,
) -> str:
    """Return a key that two runs share where one may go on from the other's state, bit for bit.

    That takes the same parameters, data and code, and the same arithmetic: version of torch, precision that
    `auto` comes to, device, threads that share a sum. package: where the code lies.
    """
    device = resolve_device(params.device)
    used = reviews.used(unlabelled=params.unlabelled != "ignore")
    content = {
        "model": model.model_dump(),
        "train": params.model_dump(),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in used.values()],
        "code": code_digest(package),
        "versions": [torch.__version__, np.__version__],  # numpy draws the order of the batches
        "arithmetic": [
            device.type,
            resolve_precision(params.precision, device),
            torch.get_num_threads(),
            *([torch.cuda.get_device_name(device)] if device.type == "cuda" else []),
        ],
    }
    return _md5(json.dumps(content, sort_keys=True).encode())


def code_digest(package: Path, parts: Iterable[str] = DECIDING) -> str:
    """Return a digest of the source files in `parts`, folders or files, by their names below `package`."""
    folders = [package / part for part in parts]
    files = sorted(path for part in folders for path in (part.rglob("*.py") if part.is_dir() else [part]))
    listing = [f"{path.relative_to(package).as_posix()} {_md5(path.read_bytes())}" for path in files]
    return _md5("\n".join(listing).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
