"""`sentiment relock`: records a refactoring in dvc.lock without a retraining, refuses other changes."""

import shutil
from pathlib import Path

import pytest

from tests.project import Project


@pytest.fixture
def committed(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project with its MLflow store."""
    return Project(shutil.copytree(reproduced.root, tmp_path / "project"))


def _edit(project: Project, file: str, old: str, new: str, count: int = 1) -> None:
    text = (project.root / file).read_text()
    assert old in text
    (project.root / file).write_text(text.replace(old, new, count))


@pytest.mark.timeout(900)
def test_refactoring_is_recorded_without_retraining(committed: Project) -> None:
    assert "nothing to record" in committed.run("sentiment", "relock").stdout
    outputs = committed.tree()
    _edit(committed, "src/sentiment/model/pooling.py", "counts", "numbers", count=-1)
    _edit(committed, "src/sentiment/text.py", '"""', '"""Changed. ')
    committed.commit("rename a variable")
    assert "differs" in committed.run("sentiment", "verify", "--lock", status=1).stdout
    shutil.rmtree(committed.root / "plots")  # outputs need not be here
    shutil.rmtree(committed.root / ".dvc/cache")

    done = committed.run("sentiment", "relock")
    assert "all stages write the same outputs" in done.stdout
    assert "recorded the new code of download, train, tune, evaluate" in done.stdout
    changed = {
        name
        for name, content in committed.tree().items()
        if outputs.get(name) != content and not name.startswith(".cache/")
    }
    assert changed == {"dvc.lock", "src/sentiment/model/pooling.py", "src/sentiment/text.py"}
    committed.commit("relock")
    assert committed.run("sentiment", "verify", "--lock").stdout.endswith("all checks agree\n")
    assert "relock` found equal results" in committed.run("sentiment", "verify", status=1).stdout
    status = committed.run("dvc", "status").stdout
    assert "src/sentiment" not in status
    assert "nothing to record" in committed.run("sentiment", "relock").stdout


def test_changed_result_is_refused(committed: Project) -> None:
    lock = (committed.root / "dvc.lock").read_bytes()
    _edit(committed, "stages/train.py", '"%.4g"', '"%.5g"')
    done = committed.run("sentiment", "relock", status=1)
    assert done.stdout.startswith("train: on a small cut")
    assert "it writes other outputs: plots/gradients.csv: " in done.stdout
    assert (committed.root / "dvc.lock").read_bytes() == lock


def test_changes_of_other_inputs_are_refused(committed: Project) -> None:
    lock = (committed.root / "dvc.lock").read_bytes()
    committed.set_params({"train.seed": 7})
    _edit(committed, "src/sentiment/text.py", '"""', '"""Changed. ')
    error = committed.run("sentiment", "relock", status=2).stderr
    assert "train: train.seed is 7, in dvc.lock 42" in error
    committed.run("git", "checkout", "-q", "params.yaml")
    (committed.root / "data/incoming/new.csv").write_text("text,label\nA fine film.,1\n")
    assert "download: data/incoming differs" in committed.run("sentiment", "relock", status=2).stderr
    assert (committed.root / "dvc.lock").read_bytes() == lock


def test_removed_files_take_no_part(committed: Project) -> None:
    """Git lists a file that was moved under its new name only."""
    committed.run("git", "mv", "src/sentiment/data/splits.py", "src/sentiment/data/parts.py")
    done = committed.run("sentiment", "relock", status=2)
    assert "No module named 'sentiment.data.splits'" in done.stderr
    assert "download failed in the worktree" in done.stderr
