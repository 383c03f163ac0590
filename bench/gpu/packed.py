"""What travels to the GPU machine: token arrays, parameters, texts and wheels in one folder.

Token ids are stored in 16 bits where the vocabulary allows, compressed; the test split has a file of its own,
so that it is not in memory before it is asked for.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews

FOLDER = Path(__file__).parent / "pack"
PARAMS, TEXTS, TOKENIZER, WHEELS = "params.json", "texts.json.gz", "tokenizer.json", "wheels"
SPLITS: tuple[paths.Split, ...] = ("train", "validation", "unlabelled", "test")

SMOKE_REVIEWS: dict[paths.Split, int] = {"train": 320, "validation": 100, "unlabelled": 160, "test": 100}
SMOKE_PARAMS: dict[str, Any] = {
    "model.max_tokens": 48,
    "model.chunk_tokens": 16,
    "model.embedding_dim": 12,
    "model.hidden_units": 12,
    "train.epochs": 1,
    "train.batch_size": 32,
    "train.schedule.warmup_steps": 2,
}
"""Small enough that all parts together take a minute on two busy cores."""


@dataclass(frozen=True)
class Pack:
    """An opened pack: parameters and where the arrays are.

    smoke: at most SMOKE_REVIEWS of each split are read, and configurations are cut to SMOKE_PARAMS.
    """

    folder: Path
    sections: Mapping[str, Any]
    vocabulary_size: int
    smoke: bool

    @classmethod
    def open(cls, folder: Path, *, smoke: bool) -> Self:
        """Read the parameters. Raises UserError if there is no pack or a file of it is missing."""
        files = [PARAMS, TEXTS, TOKENIZER, *(f"{split}.npz" for split in SPLITS)]
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder}: no pack, {', '.join(missing)} missing; bench/gpu/pack.sh writes it")
        content = json.loads((folder / PARAMS).read_bytes())
        sections = {name: content[name] for name in ("model", "train")}
        return cls(folder, sections, content["vocabulary_size"], smoke)

    def learning(self) -> TrainingData:
        """Read the splits for training and for model selection."""
        train, validation, unlabelled = (self._read(split) for split in SPLITS[:3])
        return TrainingData(self.vocabulary_size, train, validation, unlabelled)

    def read_test(self) -> TokenizedReviews:
        """Read the test split; the part quality does so once, at its end."""
        return self._read("test")

    def texts(self) -> list[str]:
        """Return raw validation reviews, for `predict`."""
        texts: list[str] = json.loads(gzip.decompress((self.folder / TEXTS).read_bytes()))
        return texts[: SMOKE_REVIEWS["validation"]] if self.smoke else texts

    def configuration(self, *changes: Mapping[str, Any], device: str) -> tuple[ModelParams, TrainParams]:
        """Return the parameters of params.yaml with changes by dotted path, validated.

        On the CPU they are of 32-bit floats: whether a processor multiplies bf16 is not the question here.
        """
        place = {"train.device": device, "train.precision": "fp32" if device == "cpu" else "auto"}
        sections = changed(self.sections, place, *changes, SMOKE_PARAMS if self.smoke else {})
        model, train = ModelParams.model_validate, TrainParams.model_validate
        return model(sections["model"]), train(sections["train"])

    def _read(self, split: paths.Split) -> TokenizedReviews:
        with np.load(self.folder / f"{split}.npz", allow_pickle=False) as arrays:
            ids, lengths, labels = arrays["ids"], arrays["lengths"], arrays["labels"]
        reviews = TokenizedReviews.from_arrays(
            ids.astype(np.int32), lengths.astype(np.int64), labels.astype(np.int8)
        )
        return spaced(reviews, SMOKE_REVIEWS[split]) if self.smoke else reviews


def write_arrays(folder: Path, splits: Mapping[paths.Split, TokenizedReviews], vocabulary_size: int) -> None:
    """Write each split, ids in as few bits as the vocabulary allows."""
    kind = np.uint16 if vocabulary_size <= 2**16 else np.int32
    for split, reviews in splits.items():
        np.savez_compressed(
            folder / f"{split}.npz",
            ids=reviews.ids.astype(kind),
            lengths=reviews.lengths.astype(np.int32),
            labels=reviews.labels,
        )


def write_texts(folder: Path, texts: Sequence[str]) -> None:
    """Write raw reviews."""
    (folder / TEXTS).write_bytes(gzip.compress(json.dumps(list(texts)).encode(), mtime=0))


def changed(sections: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested sections with values replaced by dotted path, later changes over earlier ones."""
    result: dict[str, Any] = json.loads(json.dumps(sections))
    for path, value in (item for change in changes for item in change.items()):
        *above, last = path.split(".")
        holder = result
        for name in above:
            holder = holder[name]
        holder[last] = value
    return result


def spaced(reviews: TokenizedReviews, count: int) -> TokenizedReviews:
    """Return at most a number of reviews, evenly spaced, because labels may be sorted."""
    rows: NDArray[np.int64] = np.linspace(0, len(reviews) - 1, min(count, len(reviews))).astype(np.int64)
    return reviews.take(rows)


def fewer(learning: TrainingData, train: int, validation: int) -> TrainingData:
    """Return at most a number of reviews for training and for validation."""
    return replace(
        learning, train=spaced(learning.train, train), validation=spaced(learning.validation, validation)
    )
