"""`sentiment reproduce` on a reproduced project: equal, on other hardware, and with a lock of other code."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.project import Project, wait_for

OTHER_INSTRUCTION_SET = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""Variables that limit torch and oneDNN to instructions that round sums in another order."""

STAGES = ["download", "tokenize", "train", "tune", "evaluate"]


@pytest.fixture
def committed(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project with its MLflow store."""
    return Project(shutil.copytree(reproduced.root, tmp_path / "project"))


def _reproduce(project: Project, *arguments: str, status: int, **environment: str) -> dict[str, Any]:
    done = project.run("sentiment", "reproduce", "--json", *arguments, status=status, **environment)
    assert _worktrees(project) == []
    return dict(json.loads(done.stdout))


def _worktrees(project: Project) -> list[str]:
    """Return the folders and the entries of git of temporary worktrees."""
    listed = project.run("git", "worktree", "list", "--porcelain").stdout
    entries = [line for line in listed.splitlines() if ".cache/worktrees" in line]
    return [*entries, *(path.name for path in project.root.glob(".cache/worktrees/*") if path.is_dir())]


@pytest.mark.timeout(900)
def test_commit_is_reproduced_with_equal_bytes(committed: Project, tmp_path: Path) -> None:
    """Neither the working tree nor caches, stores and settings of the machine take part."""
    (committed.root / "data/incoming/week.csv").write_text("text,label\nA fine film.,1\n")
    committed.run("dvc", "add", "--quiet", "data/incoming/week.csv")
    committed.run("dvc", "repro")
    committed.commit("data that DVC tracks")
    revision = committed.run("git", "rev-parse", "HEAD").stdout.strip()
    expected = committed.tree()
    (committed.root / "data/incoming/week.csv").unlink()  # it comes from the cache
    committed.set_params({"train.seed": 7})
    (committed.root / "src/sentiment/text.py").write_text("raise RuntimeError\n")
    committed.run("git", "commit", "-qam", "broken")
    runs, kept = len(committed.runs()), tmp_path / "kept"
    storage = f"sqlite:///{tmp_path}/none/none.db"
    result = _reproduce(committed, revision, "--keep", str(kept), status=0, TUNE_STORAGE=storage)
    assert result["verdict"] == "equal", result
    assert [stage["stage"] for stage in result["stages"]] == STAGES
    assert not any(stage["differences"] for stage in result["stages"])
    assert result["first_difference"] is None
    assert len(committed.runs()) == runs
    for name in ("models/selected/model.safetensors", "metrics/evaluate.json", "data/tokens/train/ids.npy"):
        assert (kept / name).read_bytes() == expected[name]


def test_other_instruction_set_explains_a_difference(committed: Project) -> None:
    result = _reproduce(committed, status=0, **OTHER_INSTRUCTION_SET)
    assert result["verdict"] == "other hardware", result
    first = result["first_difference"]
    assert (first["stage"], first["path"]) == ("train", "metrics/train.json")
    assert re.search(r"train_loss was 0\.\d+, is 0\.\d+", first["message"])
    assert any(line.startswith("cpu.aten_capability was ") for line in result["machine"])
    assert any(line.startswith("cpu.onednn_isa was ") for line in result["machine"])
    assert result["scores"].keys() == {"selected", "baseline", "tuned"}
    for scores in result["scores"].values():
        assert scores["verdict"] == scores["reverse_verdict"] == "no worse"


@pytest.mark.timeout(900)
def test_other_hardware_does_not_explain_another_model_that_was_not_selected(committed: Project) -> None:
    weights = committed.root / "models/tuned/model.safetensors"
    reversed_weights = {name: -tensor for name, tensor in load_file(weights).items()}
    weights.unlink()  # DVC may have linked it to its cache
    save_file(reversed_weights, weights)
    committed.run("dvc", "commit", "--force", "tune")
    committed.run("dvc", "repro", "evaluate")
    assert committed.metrics("evaluate")["selected"] == "baseline"
    committed.commit("a tuned model that no search found")
    result = _reproduce(committed, status=1, **OTHER_INSTRUCTION_SET)
    assert result["verdict"] == "different"
    assert result["reasons"] == ["the scores of models/tuned differ by more than other hardware explains"]
    assert result["scores"]["selected"]["verdict"] == "no worse"


def test_lock_of_other_code_is_different_and_the_stage_is_named(committed: Project) -> None:
    code = committed.root / "src/sentiment/training/gradients.py"
    committed.set_params({"train.seed": 7})
    code.write_text(code.read_text() + "# changed\n")
    committed.commit("without dvc repro")
    for folder in ("models", ".dvc/cache"):
        shutil.rmtree(committed.root / folder)
    done = committed.run("sentiment", "reproduce", status=1)
    assert "params: train: train.seed is 7, in dvc.lock 42" in done.stdout
    assert "code: train: src/sentiment/training differs from dvc.lock" in done.stdout
    assert "first difference: train: metrics/train.json: " in done.stdout
    assert "train ran on a machine like this one" in done.stdout
    assert "the scores cannot be compared: " in done.stdout
    assert done.stdout.splitlines()[-1].endswith(": different")
    assert _worktrees(committed) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_reproduction_leaves_no_worktree(number: signal.Signals, committed: Project) -> None:
    process = committed.start("sentiment", "reproduce")
    wait_for(lambda: list(committed.root.glob(".cache/worktrees/*/data/reviews")), process)
    os.kill(process.pid, number)
    process.wait(60)
    if number == signal.SIGKILL:  # the next start removes it, with the stage that is still running
        assert _worktrees(committed)
        process = committed.start("sentiment", "reproduce")
        time.sleep(1)
        wait_for(lambda: len(list(committed.root.glob(".cache/worktrees/*"))) == 1, process)
        wait_for(lambda: list(committed.root.glob(".cache/worktrees/*/data/reviews")), process)
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    deadline = time.monotonic() + 10
    while _worktrees(committed) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _worktrees(committed) == []
    assert committed.run("git", "status", "--porcelain").stdout == ""


def test_revisions_that_cannot_be_reproduced_are_status_2(committed: Project) -> None:
    def error(*arguments: str) -> str:
        return committed.run("sentiment", "reproduce", *arguments, status=2).stderr

    assert "'no-such': no git revision" in error("no-such")
    assert "'': no git revision" in error("")
    assert "dvc.lock of this commit has no entry of download, tokenize" in error("HEAD~1")
    assert "exists" in error("--keep", "docs" if (committed.root / "docs").exists() else "src")
    environment = committed.root / "environment.yaml"
    environment.write_text(
        "".join(
            'torch: "1.9"\n' if line.startswith("torch:") else f"{line}\n"
            for line in environment.read_text().splitlines()
        )
    )
    committed.commit("other torch")
    assert "torch: 1.9 is locked, 2." in error("HEAD")
