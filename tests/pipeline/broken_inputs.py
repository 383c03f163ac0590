"""Break each input of a stage in turn, in one process: `python -m tests.pipeline.broken_inputs STAGE`.

Runs at the root of a project. Prints one JSON object per case: the exit status, the standard error, and
whether the stage left every file as it was.
"""

import contextlib
import importlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.small import set_params
from tests.project import Project


@dataclass(frozen=True)
class Case:
    """An input file of a stage, how it is broken, and what the error message contains."""

    stage: str
    file: str
    corrupt: Callable[[Path], None]
    message: str


@dataclass(frozen=True)
class Result:
    """What a stage did with a broken input."""

    status: int
    stderr: str
    unchanged: bool
    """The stage left every file of the project as it was."""


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _one_class(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.compute.equal(table["label"], 1)), path)


def _empty(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def _missing(path: Path) -> None:
    path.unlink()


def _other_columns(path: Path) -> None:
    table = pq.read_table(path).select(["text", "label"])
    pq.write_table(table.rename_columns(["words", "label"]), path)


def _one_label(path: Path) -> None:
    np.save(path, np.ones_like(np.load(path)))


def _shorter(path: Path) -> None:
    np.save(path, np.load(path)[:-5])


def _other_model(path: Path) -> None:
    content = json.loads(path.read_text())
    content["model"]["hidden_units"] += 1
    path.write_text(json.dumps(content))


def _warmup_longer_than_the_run(path: Path) -> None:
    set_params(path.parent, {"train.schedule.warmup_steps": 1000})


def _self_training_without_unlabelled_reviews(path: Path) -> None:
    set_params(path.parent, {"train.unlabelled": "self_training"})


def _missing_device(path: Path) -> None:
    set_params(path.parent, {"train.device": "cuda"})


CASES = [
    Case("tokenize", "data/reviews/train.parquet", _missing, "no such file"),
    Case("tokenize", "data/reviews/train.parquet", _truncated, "truncated or corrupt Parquet file"),
    Case("tokenize", "data/reviews/train.parquet", _zero_bytes, "truncated or corrupt Parquet file"),
    Case("tokenize", "data/reviews/train.parquet", _flipped_bit, "truncated or corrupt Parquet file"),
    Case("tokenize", "data/reviews/validation.parquet", _flipped_bit, "truncated or corrupt Parquet file"),
    Case(
        "tokenize",
        "data/reviews/train.parquet",
        _one_class,
        "expected reviews with labels 0 and 1, found only labels [1]",
    ),
    Case("tokenize", "data/reviews/validation.parquet", _empty, "contains no reviews"),
    Case("tokenize", "data/reviews/validation.parquet", _other_columns, "found words (string), label (int8)"),
    Case("tokenize", "data/reviews/holdout.parquet", _missing, "no such file"),
    Case("tokenize", "data/reviews/holdout.parquet", _one_class, "found only labels [1]"),
    Case("tokenize", "data/reviews/unlabelled.parquet", _missing, "no such file"),
    Case("tokenize", "data/reviews/unlabelled.parquet", _truncated, "truncated or corrupt Parquet file"),
    Case("train", "data/tokens/tokenizer.json", _missing, "no such file"),
    Case("train", "data/tokens/tokenizer.json", _truncated, "truncated or corrupt tokenizer file"),
    Case("train", "data/tokens/train/ids.npy", _missing, "no such file"),
    Case("train", "data/tokens/train/ids.npy", _truncated, "truncated or corrupt token file"),
    Case("train", "data/tokens/train/ids.npy", _zero_bytes, "truncated or corrupt token file"),
    Case("train", "data/tokens/train/ids.npy", _shorter, "inconsistent token files"),
    Case("train", "data/tokens/unlabelled/ids.npy", _missing, "no such file"),
    Case(
        "train",
        "params.yaml",
        _warmup_longer_than_the_run,
        "train.schedule.warmup_steps: 1000, but the run has 8 steps (2 epochs of 4)",
    ),
    Case("tune", "data/tokens/validation/labels.npy", _one_label, "found only label 1"),
    Case("tune", "data/tokens/train/digest.json", _zero_bytes, "truncated or corrupt token file"),
    Case("evaluate", "models/tuned/model.safetensors", _missing, "no such file"),
    Case("evaluate", "models/tuned/model.safetensors", _truncated, "truncated or corrupt safetensors file"),
    Case("evaluate", "models/baseline/config.json", _truncated, "not a valid model configuration"),
    Case(
        "evaluate", "models/baseline/config.json", _other_model, "weights and configuration are incompatible"
    ),
    Case("evaluate", "data/reviews/test.parquet", _truncated, "truncated or corrupt Parquet file"),
    Case("evaluate", "data/reviews/test.parquet", _one_class, "found only labels [1]"),
]
for stage in ("train", "tune"):
    message = "requires unlabelled reviews, but no source has any"
    CASES.append(Case(stage, "params.yaml", _self_training_without_unlabelled_reviews, message))
    if not torch.cuda.is_available():
        CASES.append(
            Case(stage, "params.yaml", _missing_device, "train.device: cuda is not available to torch")
        )


def _run(case: Case) -> Result:
    """Break a file, run the stage's main function, and put the file back."""
    file = Path(case.file)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)  # a new file: an earlier case may still have the old one mapped into memory
    case.corrupt(file)
    project = Project(Path.cwd())
    before = project.tree()
    errors = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(errors):
        try:
            importlib.import_module(f"stages.{case.stage}").main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    unchanged = project.tree() == before
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    return Result(status, errors.getvalue(), unchanged)


if __name__ == "__main__":
    for case in CASES:
        if case.stage == sys.argv[1]:
            print(json.dumps(asdict(_run(case))))
