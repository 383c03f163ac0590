"""Every kind of source, from `dvc exp run -S` to an evaluated model."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment import paths
from sentiment.data.imdb import load_package_reviews
from sentiment.data.parquet import sample_reviews, to_batches
from tests.data.archives import imdb_members, write_archive
from tests.project import Project

BASE = ("download.limit=null", "model.hidden_units=8", "train.epochs=1", "tune.trials=1")


@pytest.fixture(scope="module")
def enough_reviews() -> pa.Table:
    """A thousand real reviews, half of them positive."""
    whole = load_package_reviews()
    return pa.Table.from_batches(sample_reviews(lambda: to_batches(whole), 1000, seed=42))


def _archive(folder: Path, reviews: pa.Table) -> str:
    members = {
        name: text + b" That is all."
        if "/unsup/" in name
        else text  # otherwise duplicates, which are removed
        for name, text in imdb_members(reviews).items()
    }
    path = write_archive(folder / "aclImdb.tar.gz", members)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return f'[{{kind: imdb, urls: ["{path.as_uri()}"], checksum: "sha256:{checksum}"}}]'


def _phrases(folder: Path, reviews: pa.Table) -> str:
    """Write reviews like Kaggle's train.tsv: phrases of a sentence, sentiment from 0 to 4."""
    lines = ["PhraseId\tSentenceId\tPhrase\tSentiment"]
    for sentence, row in enumerate(reviews.to_pylist()):
        words = row["text"].replace('"', "").replace("<br />", " ").split()[:60]
        for start, sentiment in ((0, 4 * row["label"]), (5, 3 if row["label"] else 1), (10, 2)):
            lines.append(f"{len(lines)}\t{sentence}\t{' '.join(words[start:])}\t{sentiment}")
    path = folder / "train.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = "{text: Phrase, label: Sentiment, group: SentenceId}"
    labels = "{0: 0, 1: 0, 2: null, 3: 1, 4: 1}"
    return f'[{{kind: files, name: kaggle, paths: ["{path}"], columns: {columns}, labels: {labels}}}]'


@pytest.mark.parametrize("made", [_archive, _phrases])
def test_source_runs_end_to_end(
    made: Callable[[Path, pa.Table], str], project: Project, tmp_path: Path, enough_reviews: pa.Table
) -> None:
    overrides = [f"download.sources={made(tmp_path, enough_reviews)}", *BASE]
    if made is _archive:
        overrides.append("train.unlabelled=self_training")
    settings = [part for override in overrides for part in ("-S", override)]
    project.run("dvc", "exp", "run", *settings)
    metrics = project.metrics("download")
    tables = {
        split: pq.read_table(project.root / f"data/reviews/{split}.parquet")
        for split in paths.LABELLED_SPLITS
    }
    groups = {split: set(table["group"].to_pylist()) - {None} for split, table in tables.items()}
    assert all(metrics[split]["reviews"] > 0 for split in groups)
    for one, other in itertools.combinations(("train", "validation", "holdout"), 2):
        assert groups[one] & groups[other] == set()
    assert 0 <= project.metrics("evaluate")["test"]["auc"] <= 1
    if made is _archive:  # its own halves: half of the films are in both, as in no real archive
        assert metrics["test"]["reviews"] == 500
        assert metrics["unlabelled"]["reviews"] == 10
        assert project.metrics("tokenize")["unlabelled"]["tokens"] > 0
        (run,) = project.runs("tags.stage = 'train'")
        inputs = sorted(given.dataset.name for given in run.inputs.dataset_inputs)
        trained_on = ["reviews-train", "reviews-unlabelled", "reviews-validation"]
        assert inputs == sorted([*trained_on, "reviews-holdout", "reviews-test"])  # evaluate adds two
    else:
        assert groups["train"] & groups["test"] == set()
        assert sum(metrics[split]["reviews"] for split in groups) <= 2000  # two labelled phrases each
