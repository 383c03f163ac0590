"""What decides the result of a training run, as one key."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.learning import LearningReviews
from sentiment.training.device import resolve_device
from sentiment.training.precision import resolve_precision
from sentiment.training.processor import instruction_sets

PACKAGE = Path(__file__).parents[1]

DECIDING = ("params", "tokens", "model", "training")
"""Parts of the package whose code decides the weights; reviews has done its work once there are tokens."""


@dataclass(frozen=True)
class TrainingKey:
    """What two runs share where one may resume from the other's state, bit for bit.

    recipe: digest of parameters, data and code. arithmetic: by name, what decides how sums are rounded.
    As a string it is one digest of both.
    """

    recipe: str
    arithmetic: Mapping[str, str]

    def __str__(self) -> str:
        return _md5(json.dumps([self.recipe, dict(self.arithmetic)], sort_keys=True).encode())

    def differences(self, arithmetic: Mapping[str, str]) -> list[str]:
        """Say in what the arithmetic of another run of this recipe differs: `name there, here`."""
        names = sorted({*arithmetic, *self.arithmetic})
        return [
            f"{name} was {arithmetic.get(name, 'not set')}, is {self.arithmetic.get(name, 'not set')}"
            for name in names
            if arithmetic.get(name) != self.arithmetic.get(name)
        ]


def training_key(
    model: ModelParams,
    params: TrainParams,
    reviews: LearningReviews,
    package: Path = PACKAGE,
) -> TrainingKey:
    """Return the key of a training.

    Two trainings share it where they have the same parameters, data and code, and the same arithmetic:
    versions of torch and numpy, precision that `auto` comes to, device, threads that share a sum, processor
    and instruction sets. package: where the code lies.
    """
    used = reviews.used(unlabelled=params.unlabelled != "ignore")
    content = {
        "model": model.model_dump(),
        "train": params.model_dump(),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in used.values()],
        "code": code_digest(package),
    }
    return TrainingKey(_md5(json.dumps(content, sort_keys=True).encode()), arithmetic(params))


def arithmetic(params: TrainParams) -> dict[str, str]:
    """Return, by name, what decides how a training's sums are rounded.

    Raises UserError where the device or precision asked for is not there.
    """
    device = resolve_device(params.device)
    found = {
        "torch": torch.__version__,
        "numpy": np.__version__,  # it draws the order of the batches
        "device": device.type,
        "precision": resolve_precision(params.precision, device),
        "threads": str(torch.get_num_threads()),
        **instruction_sets(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def code_digest(package: Path, parts: Iterable[str] = DECIDING) -> str:
    """Return a digest of the source files in `parts`, folders or files, by their names below `package`."""
    folders = [package / part for part in parts]
    files = sorted(path for part in folders for path in (part.rglob("*.py") if part.is_dir() else [part]))
    listing = [f"{path.relative_to(package).as_posix()} {_md5(path.read_bytes())}" for path in files]
    return _md5("\n".join(listing).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
