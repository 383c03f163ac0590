"""A small project with two models to promote, one of which is far better than the other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from sentiment.data.imdb import load_package_reviews
from tests.project import Project

SELECTED_WEIGHTS = "models/selected/model.safetensors"
HOLDOUT = "data/reviews/holdout.parquet"
REVIEWS_PER_LABEL = 150


@dataclass(frozen=True)
class RegisteredProject:
    """A project with commits of an untrained and of a trained model; nothing is registered yet.

    Attributes:
        project: the project, at the commit of the trained model.
        untrained: commit of a model with random weights.
        trained: commit of the model that the project trained.
        violating: commit of the trained model with another threshold, which violates a limit.
    """

    project: Project
    untrained: str
    trained: str
    violating: str

    @property
    def root(self) -> Path:
        return self.project.root

    def git(self, *arguments: str) -> str:
        """Run a git command and return its output."""
        return self.project.run("git", *arguments).stdout.strip()


def build(project: Project) -> RegisteredProject:
    """Commit the models. A larger holdout split than the project's own decides on them."""
    _enlarge_holdout(project)
    weights = {path: (project.root / path).read_bytes() for path in _weight_files(project)}
    for path in weights:
        _randomize(project.root / path)
    untrained = _commit(project, "untrained model", violated_limits=[])
    for path, content in weights.items():
        (project.root / path).write_bytes(content)
    trained = _commit(project, "trained model", violated_limits=[])
    _set_threshold(project, 0.6)
    violating = _commit(project, "violating model", violated_limits=["behavioural test names: 1 of 2"])
    return RegisteredProject(project, untrained, trained, violating)


def _weight_files(project: Project) -> tuple[str, str]:
    candidate = project.metrics("evaluate")["selected"]
    return f"models/{candidate}/model.safetensors", SELECTED_WEIGHTS


def _randomize(path: Path) -> None:
    generator = np.random.default_rng(1)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f":
            tensors[name] = generator.normal(size=tensor.shape).astype(tensor.dtype)
    path.unlink()  # DVC may have linked it to its cache
    save_file(tensors, path)


def _set_threshold(project: Project, threshold: float) -> None:
    path = project.root / "models" / "selected" / "config.json"
    config = json.loads(path.read_text())
    config["calibration"]["threshold"] = threshold
    path.unlink()
    path.write_text(json.dumps(config))


def _commit(project: Project, message: str, **changes: Any) -> str:
    """Record the files of the working tree in dvc.lock, as if the stages had written them."""
    path = project.root / "metrics" / "evaluate.json"
    path.write_text(json.dumps(project.metrics("evaluate") | changes))
    project.run("dvc", "commit", "--force", "--quiet")
    project.commit(message)
    return project.run("git", "rev-parse", "HEAD").stdout.strip()


def _enlarge_holdout(project: Project) -> None:
    """Replace the holdout split by reviews that no other split has."""
    others = [
        pq.read_table(path, columns=["text"])
        for path in (project.root / "data" / "reviews").glob("*.parquet")
    ]
    known = pa.concat_tables(others)["text"].combine_chunks()
    reviews = load_package_reviews()
    own = pq.read_table(project.root / HOLDOUT)
    parts = [
        reviews.filter(pc.equal(reviews["label"], label)).slice(3000, REVIEWS_PER_LABEL) for label in (0, 1)
    ]
    texts = [text for part in parts for text in part["text"].to_pylist()]
    labels = [label for part in parts for label in part["label"].to_pylist()]
    table = pa.table(
        {
            "text": texts,
            "label": pa.array(labels, pa.int8()),
            "group": pa.nulls(len(texts), pa.string()),
            "row": [str(number) for number in range(len(texts))],
            "source": ["imdb"] * len(texts),
        }
    )
    table = table.filter(pc.invert(pc.is_in(table["text"], value_set=known)))
    (project.root / HOLDOUT).unlink()
    pq.write_table(table.select(own.schema.names).cast(own.schema), project.root / HOLDOUT)
