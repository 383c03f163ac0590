"""`sentiment compare A B`: the verdict on two models, on reviews that neither has learned from."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment import paths
from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.parquet import read_reviews_with_origin
from sentiment.data.seen_texts import fingerprint_seen_texts
from sentiment.errors import UserError
from sentiment.evaluation.evaluated_model import encode_groups
from sentiment.evaluation.verdict import Comparison, compare_scores
from sentiment.model.classifier import predict_logits
from sentiment.model.model_config import CONFIG_FILE, SEEN_TEXTS_FILE, WEIGHTS_FILE
from sentiment.model.model_files import load_model, load_seen_texts
from sentiment.model.predictor import Predictor
from sentiment.params import load_params
from sentiment.repository import get_commit, is_revision, run_git, warn_about_revision
from sentiment.stage_inputs import WorkingTree, find_older_inputs, list_locked_outputs, parse_lock
from sentiment.tokens.vocabulary import load_tokenizer


@dataclass(frozen=True)
class ComparedModel:
    """A model to compare, and what it has learned from.

    Attributes:
        name: name that the user gave.
        predictor: the model with its tokenizer.
        seen_texts: fingerprints of the texts that it was trained or validated on, shape (texts,).
    """

    name: str
    predictor: Predictor
    seen_texts: NDArray[np.uint64]


@dataclass(frozen=True)
class ModelComparison:
    """Result of `compare`.

    Attributes:
        split: split whose reviews were compared on.
        left_out: reviews of the split that a model has learned from, and that are therefore left out.
        comparison: verdict on the first model, with the second one as reference.
    """

    model: str
    reference: str
    split: paths.Split
    left_out: int
    comparison: Comparison

    def __str__(self) -> str:
        left_out = f"; {self.left_out:,} left out, which a model has learned from" if self.left_out else ""
        return (
            f"{self.model} compared with {self.reference}: {self.comparison} ({self.split} split{left_out})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is printed in JSON."""
        return {
            "model": self.model,
            "reference": self.reference,
            "split": self.split,
            "left_out": self.left_out,
            **self.comparison.to_dict(),
        }


@dataclass(frozen=True)
class ScoredReviews:
    """Reviews of a split that none of some models has learned from, with the logits of these models.

    Attributes:
        reviews: the reviews, with the columns of the split.
        labels: 0 or 1, shape (reviews,).
        groups: group code of each review, shape (reviews,); None if no review has a group.
        logits: logits by name of the model, each of shape (reviews,).
        left_out: reviews of the split that a model has learned from, and that are therefore left out.
    """

    reviews: pa.Table
    labels: NDArray[np.int8]
    groups: NDArray[np.int64] | None
    logits: Mapping[str, NDArray[np.float32]]
    left_out: int


def compare(
    model: str,
    reference: str,
    split: paths.Split,
) -> ModelComparison:
    """Compare two models on the reviews of a split that neither has learned from.

    Args:
        model: folder, stage, name of a model below `models`, or git revision, of which `models/selected` is
            taken.
        reference: the same, for the model to compare with.
        split: split of the working tree.

    Raises:
        UserError: a model cannot be found or read, does not record what it has learned from, or has learned
            from nearly all reviews of the split.
    """
    params = load_params().evaluate
    scored = score_unseen_reviews([model, reference], split)
    comparison = compare_scores(
        scored.labels,
        scored.logits[model],
        scored.logits[reference],
        groups=scored.groups,
        confidence_level=params.confidence_level,
        margin=params.margin,
    )
    return ModelComparison(model, reference, split, scored.left_out, comparison)


def score_unseen_reviews(names: Sequence[str], split: paths.Split) -> ScoredReviews:
    """Predict the reviews of a split that none of the models has learned from, once with each model.

    Args:
        names: models, named as for `compare`.
        split: split of the working tree.

    Raises:
        UserError: as `compare`.
    """
    reviews = read_reviews_with_origin(paths.reviews(split))
    with ExitStack() as stack:
        models = [stack.enter_context(_open_model(name)) for name in dict.fromkeys(names)]
        fingerprints = compute_fingerprints(reviews["text"].to_pylist())
        unseen = ~np.isin(fingerprints, np.concatenate([model.seen_texts for model in models]))
        rest = reviews.filter(unseen)
        labels = rest["label"].to_numpy()
        if min(np.bincount(labels, minlength=2)) < 2:
            raise UserError(
                f"{len(rest):,} of the {len(reviews):,} reviews of the {split} split are new to "
                f"{'both ' if len(names) == 2 else ''}{' and '.join(names)}, with too few of a label; "
                "a comparison needs at least two of each"
            )
        texts = rest["text"].to_pylist()
        logits = {model.name: _predict_logits(model, texts) for model in models}
    groups = encode_groups(rest["group"].to_pandas())
    return ScoredReviews(rest, labels, groups, logits, len(reviews) - len(rest))


def _predict_logits(model: ComparedModel, texts: list[str]) -> NDArray[np.float32]:
    """Return the logits of a model, which have no ties where probabilities round to 0 or 1."""
    encoded = model.predictor.encode(texts)
    logits = predict_logits(model.predictor.model, encoded.tokens, description=None, ngrams=encoded.ngrams)
    if not np.isfinite(logits).all():
        raise UserError(f"{model.name}: its scores are not finite; its weights may be NaN")
    return logits


@contextmanager
def _open_model(name: str) -> Iterator[ComparedModel]:
    local = Path(name) if (Path(name) / CONFIG_FILE).exists() else paths.MODELS / name
    folder = paths.PIPELINE_MODELS.get(name, local)  # whatever else has that name
    if (folder / CONFIG_FILE).exists():
        if not Path(name).is_absolute():
            warn_about_revision(name, "model of the working tree")
        yield _load_compared_model(name, folder)
    elif name in paths.PIPELINE_MODELS:
        raise UserError(f"{name}: {folder} does not exist yet; `dvc repro` writes it")
    elif not is_revision(name):
        raise UserError(
            f"{name}: neither a folder with a {CONFIG_FILE}, nor one of {', '.join(paths.PIPELINE_MODELS)}, "
            "nor a git revision, nor a DVC experiment"
        )
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield _load_compared_model(name, fetch_model(name, Path(temporary) / "model"))


def _load_compared_model(name: str, folder: Path) -> ComparedModel:
    candidates = {paths.model(candidate).resolve(): candidate for candidate in paths.CANDIDATES}
    if candidate := candidates.get(folder.resolve()):
        _require_training_data(name, candidate)
        return ComparedModel(
            name, Predictor(load_model(folder), load_tokenizer(paths.TOKENIZER)), fingerprint_seen_texts()
        )
    seen_texts = load_seen_texts(folder)
    if seen_texts is None:
        raise UserError(
            f"{name}: the model has no {SEEN_TEXTS_FILE}, so reviews that it has learned from cannot be left "
            "out: an earlier version of the code wrote the model; `dvc repro` writes one with this file to "
            f"{paths.SELECTED}"
        )
    return ComparedModel(name, Predictor.load(folder), seen_texts)


def _require_training_data(name: str, candidate: paths.Candidate) -> None:
    """Raise UserError unless the files on disk are those that a candidate was trained with.

    Only the `dvc.lock` on disk records that: a candidate's folder has neither tokenizer nor seen texts.
    """
    tree, stage = WorkingTree(), paths.CANDIDATES[candidate]
    lock = parse_lock((tree.read(str(paths.LOCK)) or b"").decode(errors="replace"))
    for reader in ("tokenize", stage):
        if reader not in lock:
            raise UserError(
                f"{name}: {paths.LOCK} does not record {reader}, so what the model has learned from is not "
                "known; `dvc repro` trains it again"
            )
        if older := find_older_inputs(lock, reader):
            raise UserError(
                f"{name}: {reader} has not run since {older[0]} was written, so the model may have "
                "learned from other reviews than those on disk; `dvc repro` trains it again"
            )
    written = list_locked_outputs(lock)
    model_files = [paths.model(candidate) / file for file in (WEIGHTS_FILE, CONFIG_FILE)]
    for file in [*map(paths.reviews, paths.LEARNED_SPLITS), paths.TOKENIZER, *model_files]:
        if tree.hash(file.as_posix()) != written.get(file.as_posix()):
            raise UserError(
                f"{name}: {file} is not the one in {paths.LOCK}, which records what the model was trained "
                "with; `dvc checkout` restores it, `dvc repro` trains with the present code and data"
            )


def fetch_model(revision: str, target: Path) -> Path:
    """Copy `models/selected` of a git revision or a DVC experiment to a folder, as `fetch_output`.

    Raises:
        UserError: neither cache nor remote has it, the revision has none, or only stages before evaluate ran
            in the revision, so that the model is older than the candidates.
    """
    _require_evaluated(revision)
    return fetch_output(revision, paths.SELECTED, target)


def _require_evaluated(revision: str) -> None:
    """Raise UserError if evaluate did not read what other stages wrote, by `dvc.lock` of a revision."""
    lock = parse_lock((run_git("show", f"{get_commit(revision)}:./{paths.LOCK}") or b"").decode())
    if older := find_older_inputs(lock, "evaluate"):
        raise UserError(
            f"{revision}: evaluate has not run since {older[0]} was written, so {paths.SELECTED} of this "
            "revision is an older model; run the whole pipeline in it (`dvc exp run` without the name of "
            "a stage), or compare the folders of two working trees"
        )


def fetch_output(revision: str, path: Path, target: Path) -> Path:
    """Copy a file or folder that DVC tracks in a git revision from DVC's cache or remote.

    Args:
        revision: git revision or DVC experiment.
        path: path of the file or folder in the revision.
        target: path to write, which must not exist.

    Returns:
        The target.

    Raises:
        UserError: neither cache nor remote has it, or the revision has none.
    """
    rev = get_commit(revision) or revision
    command = ["get", ".", str(path), "--rev", rev, "--out", str(target), "--quiet"]
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *command], capture_output=True, text=True, check=False
    )
    if process.returncode:
        lines = process.stderr.splitlines()
        reason = next((line for line in lines if line.startswith("ERROR: ")), "dvc get failed")
        raise UserError(
            f"{revision}: cannot get {path} of this revision: {reason.removeprefix('ERROR: ')}; "
            "`dvc fetch --all-commits` downloads the outputs of all commits from a DVC remote"
        )
    return target
