"""Every file that one stage hands to another, relative to the root of the repository.

DVC runs each stage from that root, or from the root of a copy of the repository (`dvc exp run --temp`),
so relative paths always mean the right tree.
"""

from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "test", "unlabelled"]
Candidate = Literal["baseline", "tuned"]

LEARNING_SPLITS: tuple[Split, ...] = ("train", "validation")
"""Splits that may teach or choose; the test split is for evaluate alone."""

LABELLED_SPLITS: tuple[Split, ...] = ("train", "validation", "test")

CANDIDATES: dict[Candidate, str] = {"baseline": "train", "tuned": "tune"}
"""Models that evaluate chooses from, and the stage that makes each."""

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
INCOMING = Path("data/incoming")
"""Labelled files of the user's, a dependency of download: what is put there re-runs the pipeline."""
REVIEWS = Path("data/reviews")
TOKENS = Path("data/tokens")
TOKENIZER = TOKENS / "tokenizer.json"
MODELS = Path("models")
SELECTED = MODELS / "selected"
METRICS = Path("metrics")
PLOTS = Path("plots")
REPORTS = Path("reports")
CHECKPOINTS = Path(".checkpoints")
"""No output of a stage, and below the user's repository also where DVC runs a stage in a copy of it."""
JOURNAL = Path("mlruns/optuna.journal")
"""What the searches have tried; like the checkpoints, no output, and below the user's repository."""
STUDIES = Path("mlruns/studies")
"""A folder per study: locks, checkpoints, models and validation logits of its trials."""
QUARANTINE = REPORTS / "quarantine.csv"
NEAR_DUPLICATES = REPORTS / "near_duplicates.csv"


def reviews(split: Split) -> Path:
    """The Parquet file with one split's reviews."""
    return REVIEWS / f"{split}.parquet"


def tokens(split: Split) -> Path:
    """The folder with one split's token arrays."""
    return TOKENS / split


def model(candidate: Candidate) -> Path:
    """The folder with one candidate's weights and configuration."""
    return MODELS / candidate


def metrics(stage: str) -> Path:
    """The figures that one stage reports to DVC."""
    return METRICS / f"{stage}.json"
