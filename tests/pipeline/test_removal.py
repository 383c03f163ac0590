"""The removal list in a project: download drops, `verify` shows, experiments take the list along."""

import json

import pyarrow.parquet as pq

from sentiment.data.removal import compute_keys
from tests.project import Project


def test_listed_review_is_not_learned_from(project: Project) -> None:
    text = pq.read_table(project.root / "data/reviews/train.parquet")["text"][0].as_py()
    (key,) = compute_keys([text])
    assert project.run("sentiment", "key", "--", text).stdout == f"{key}\n"
    with (project.root / "data/removed.txt").open("a") as file:
        file.write(f"{key}  # its author asked for it\n")
    checks = json.loads(project.run("sentiment", "verify", "--json", status=1).stdout)["checks"]
    removed = next(check for check in checks if check["name"] == "removed")
    assert removed["status"] == "differs"
    assert f"1 of the 1 reviews in data/removed.txt were learned from, first {key}" in removed["message"]
    data = next(check for check in checks if check["name"] == "data")
    assert data["message"] == "download: data/removed.txt differs from dvc.lock"
    project.commit("remove a review")
    project.run("dvc", "exp", "run", "--temp", "--quiet", "--name", "without", "download")
    project.run("dvc", "exp", "apply", "--quiet", "without")
    assert project.metrics("download")["removed"]["train"] == 1
    assert text not in pq.read_table(project.root / "data/reviews/train.parquet")["text"].to_pylist()


def test_invalid_line_stops_download(project: Project) -> None:
    (project.root / "data/removed.txt").write_text("A dull film.\n")
    error = project.stage("download", status=2).stderr
    assert "error: data/removed.txt line 1: expected the key of a review" in error
