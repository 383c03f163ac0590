"""Paths of the files that stages read and write, relative to the root of the repository.

DVC runs each stage in that root, or in the root of a copy of the repository (`dvc exp run --temp`), so a
relative path always refers to the right tree.
"""

from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "holdout", "test", "recent", "unlabelled"]
Candidate = Literal["baseline", "tuned"]

LEARNING_SPLITS: tuple[Split, ...] = ("train", "validation")
"""Labelled splits that train and tune read; only evaluate reads the holdout and the test split."""

LEARNED_SPLITS: tuple[Split, ...] = (*LEARNING_SPLITS, "unlabelled")
"""Splits whose texts a model may have learned from: also the unlabelled ones, for self-training."""

LABELLED_SPLITS: tuple[Split, ...] = ("train", "validation", "holdout", "test")
"""Splits that the stages after download read; `recent` is for `sentiment retrain` and `compare` alone."""

CANDIDATES: dict[Candidate, str] = {"baseline": "train", "tuned": "tune"}
"""Models that evaluate selects from, and the stage that trains each."""

PARAMS = Path("params.yaml")
ENVIRONMENT = Path("environment.yaml")
"""Locked versions of the packages that results depend on; `make lock` writes it."""
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
INCOMING = Path("data/incoming")
"""The user's labelled files; a dependency of download, so new files there re-run the pipeline."""
REMOVED = Path("data/removed.txt")
"""Keys of reviews that must not be learned from; a dependency of download."""
REVIEWS = Path("data/reviews")
TOKENS = Path("data/tokens")
TOKENIZER = TOKENS / "tokenizer.json"
MODELS = Path("models")
SELECTED = MODELS / "selected"
METRICS = Path("metrics")
PLOTS = Path("plots")
REPORTS = Path("reports")
CHECKPOINTS = Path(".checkpoints")
"""Checkpoints of trainings. Not a stage output: they are in the user's repository, not in DVC's copies."""
JOURNAL = Path("mlruns/optuna.journal")
"""Optuna's journal of all studies. Not a stage output, like the checkpoints."""
STUDIES = Path("mlruns/studies")
"""Folders of the studies, with the locks, checkpoints, models and validation logits of their trials."""
QUARANTINE = REPORTS / "quarantine.csv"
NEAR_DUPLICATES = REPORTS / "near_duplicates.csv"
MODEL_CARD = REPORTS / "evaluation.md"
ERRORS = REPORTS / "errors.md"


def reviews(split: Split) -> Path:
    """Return the Parquet file with the reviews of a split."""
    return REVIEWS / f"{split}.parquet"


def tokens(split: Split) -> Path:
    """Return the folder with the token arrays of a split."""
    return TOKENS / split


def model(candidate: Candidate) -> Path:
    """Return the folder with the weights and the configuration of a model."""
    return MODELS / candidate


def metrics(stage: str) -> Path:
    """Return the file with the metrics that a stage reports to DVC."""
    return METRICS / f"{stage}.json"


PIPELINE_MODELS: dict[str, Path] = {
    **{name: model(candidate) for candidate, stage in CANDIDATES.items() for name in (candidate, stage)},
    **dict.fromkeys(("selected", "evaluate"), SELECTED),
}
"""Folders of the pipeline's models, by the model's name and by the stage that writes it."""
