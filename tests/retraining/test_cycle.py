"""`sentiment retrain`: the outcome, the report, the ledger, and what a second call or a kill changes."""

import json
import random
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.retrain.cycle import EASY
from sentiment.data.removal import compute_keys
from sentiment.ledger import EXIT_STATUSES
from sentiment.repository_locks import require_idle
from tests.project import PATIENCE_S, Project, kill, wait_for
from tests.retraining.conftest import Hook
from tests.retraining.retraining_project import RetrainingProject, flip, take_reviews

GONE = {
    "kind": "files",
    "name": "gone",
    "paths": ["gone/*.csv"],
    "columns": {"text": "text", "label": "label"},
    "labels": {"0": 0, "1": 1},
}
"""A source whose files do not exist."""


def test_first_model_is_proposed(project: Project) -> None:
    project.set_params(EASY)
    retraining = RetrainingProject(project)
    retraining.retrain()
    assert retraining.result["outcome"] == "promote"
    assert retraining.report.startswith("# Retraining: promote the new model\n\nFirst champion")
    (line,) = retraining.ledger
    assert json.loads((project.root / "reports/decision.jsonl").read_text()) == line
    assert (line["champion"], line["is_look"]) == (None, False)
    project.commit("the proposal")
    project.run("sentiment", "promote", "--first")
    assert retraining.champion["artifact_md5"] == line["challenger"]


def test_nothing_new_trains_nothing(retraining: RetrainingProject) -> None:
    lock = (retraining.root / "dvc.lock").read_bytes()
    output = retraining.retrain(10, "--exit-code").stdout
    assert "Running stage" not in output
    assert retraining.report.startswith("# Retraining: nothing new\n\nThe selected model is the champion")
    assert not (retraining.root / "reports/decision.jsonl").exists()
    assert retraining.ledger == []
    assert (retraining.root / "dvc.lock").read_bytes() == lock


def test_second_retraining_repeats_the_decision(retraining: RetrainingProject) -> None:
    retraining.project.set_params({"train.epochs": 1, "train.optimizer.learning_rate": 0.0001})
    retraining.retrain()
    first, lock = retraining.result, (retraining.root / "dvc.lock").read_bytes()
    assert first["outcome"] in ("not_better", "cannot_tell")
    assert first["entry"]["is_look"]
    assert "train.epochs: 2 → 1" in retraining.report
    report = retraining.report.partition("Stages:")[0]
    assert "champion sentiment@v1.0.0: " in report
    assert "`params.yaml` had changes that were not committed" in retraining.report
    retraining.retrain()
    assert retraining.result["entry"] == first["entry"]
    again = f" This was decided on {first['entry']['created']}, and is not decided again."
    assert retraining.report.partition("Stages:")[0] == report.replace(".\n", f".{again}\n", 1)
    assert len(retraining.ledger) == 1
    assert (retraining.root / "dvc.lock").read_bytes() == lock


def test_flipped_labels_stop_before_training(retraining: RetrainingProject) -> None:
    champion = retraining.champion
    retraining.add_batch(flip(take_reviews(6000, 200)))
    output = retraining.retrain(13, "--exit-code").stdout
    assert "Running stage 'train'" not in output
    digest = retraining.result["entry"]["batch"]
    assert f"add {digest} to retrain.accept" in retraining.report
    assert retraining.ledger[0]["outcome"] == "data_stopped"
    assert retraining.champion == champion
    retraining.project.set_params({"retrain.accept": [digest]})
    retraining.retrain(13, "--exit-code")  # without a commit, nobody would see who accepted the rows
    retraining.project.commit("accept the rows of a test")
    retraining.retrain()
    assert retraining.result["outcome"] != "data_stopped"
    assert len(retraining.ledger) == 2


def test_data_that_download_refuses_are_stopped(retraining: RetrainingProject) -> None:
    champion = retraining.champion
    batch = retraining.root / "data/incoming/batch.csv"
    batch.write_text("review,label\na fine film,1\n")
    retraining.project.commit("another column")
    for _ in range(2):
        retraining.retrain(13, "--exit-code")
    assert retraining.report.startswith(
        "# Retraining: stopped by the data gate\n\ndata/incoming/batch.csv: no column text"
    )
    assert [line["outcome"] for line in retraining.ledger] == ["data_stopped"]

    retraining.add_batch(take_reviews(6000, 60) * 2)
    retraining.retrain(13, "--exit-code")
    reason = retraining.result["reason"]
    assert "are duplicates, more than download.checks.duplicates (5.0%); correct the rows" in reason
    assert "data/incoming/batch.csv row" in retraining.report
    assert len(retraining.ledger) == 2
    assert retraining.champion == champion

    retraining.project.set_params({"download.sources": [GONE]})
    retraining.retrain(2)
    assert retraining.report.startswith("# Retraining: failed\n\n")
    assert "gone/*.csv: matches no file" in retraining.report
    assert not (retraining.root / "reports/retrain.json").exists()
    assert len(retraining.ledger) == 2


def test_good_batch_is_compared_with_a_margin(retraining: RetrainingProject) -> None:
    retraining.add_batch(take_reviews(6000, 600))
    retraining.retrain()
    assert retraining.result["outcome"] in ("promote", "cannot_tell")
    assert retraining.result["data_gate"]["violations"] == []
    assert any("train: " in line for line in retraining.result["changes"]["data"])


def test_model_that_forgets_a_review_need_not_be_better(retraining: RetrainingProject) -> None:
    train = pq.read_table(retraining.root / "data/reviews/train.parquet")
    (key,) = compute_keys(train["text"].to_pylist()[:1])
    (retraining.root / "data/removed.txt").write_text(f"{key}  # its author asked for it\n")
    retraining.project.commit("remove a review")
    retraining.retrain()
    assert retraining.result["data_gate"]["batch"] is None
    assert retraining.result["outcome"] in ("promote", "cannot_tell")
    assert "better than the champion is needed" not in retraining.result["reason"]


def test_equal_inputs_on_another_processor_are_nothing_new(retraining: RetrainingProject) -> None:
    retraining.project.run("dvc", "repro", "--quiet", "--force", ATEN_CPU_CAPABILITY="default")
    assert retraining.project.run("git", "diff", "dvc.lock").stdout, "both instruction sets round alike"
    retraining.retrain(10, "--exit-code")
    assert "rounding of another processor" in retraining.report


def test_model_that_was_rolled_back_is_not_proposed_again(retraining: RetrainingProject) -> None:
    project = retraining.project
    project.set_params({"evaluate.threshold.value": 0.4})
    project.run("dvc", "repro", "--quiet")
    project.commit("another threshold")
    project.run("sentiment", "promote", "--force", "--reason", "fewer false negatives")
    project.run("sentiment", "rollback", "--reason", "too many false positives")
    retraining.retrain(10, "--exit-code")
    assert "was the champion before sentiment@v1.0.0 (sentiment#champion#2)" in retraining.report
    assert retraining.ledger == []


def test_limit_that_was_lifted_is_decided_again(retraining: RetrainingProject) -> None:
    project = retraining.project
    shutil.copytree(project.root / "models/baseline", project.root / "selected")  # is no challenger
    project.set_params(
        {"evaluate.limits.behaviour": {"minimum_functionality": 1.0}, "evaluate.threshold.value": 0.45}
    )
    retraining.retrain()
    assert (retraining.result["outcome"], retraining.result["entry"]["is_look"]) == ("not_better", False)
    retraining.retrain()
    assert len(retraining.ledger) == 1
    project.set_params({"evaluate.limits.behaviour": {}})
    retraining.retrain()
    assert retraining.result["entry"]["is_look"]
    comparison = retraining.result["entry"]["details"]["model_gate"]["comparisons"]["champion"]
    assert (comparison["verdict"], comparison["difference"]) == ("no worse", 0.0)
    assert len(retraining.ledger) == 2


def test_data_that_change_after_the_data_gate_are_not_decided_on(retraining: RetrainingProject) -> None:
    retraining.add_batch(take_reviews(6000, 60))
    code = "from sentiment.retraining.refresh import run_other_stages; run_other_stages()"
    assert (
        "the data gate has not checked the change"
        in retraining.project.run("python", "-c", code, status=1).stderr
    )
    retraining.retrain()
    assert retraining.result["data_gate"]["batch"]["rows"] > 40


def test_two_at_once_decide_once(retraining: RetrainingProject) -> None:
    retraining.project.set_params({"train.epochs": 1})
    processes = [retraining.project.start("sentiment", "retrain") for _ in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    assert len(retraining.ledger) == 1
    assert retraining.result["entry"] == retraining.ledger[0]


def test_failures_have_their_own_status(retraining: RetrainingProject) -> None:
    retraining.project.set_params({"train.epochs": 0})
    assert "train.epochs" in retraining.retrain(2).stderr
    retraining.project.set_params({"train.epochs": 2, "train.optimizer.learning_rate": 1e30})
    retraining.retrain(3)
    assert not (retraining.root / "reports/retrain.json").exists()
    assert retraining.ledger == []


def test_without_a_commit_nothing_runs(project: Project) -> None:
    before = project.tree()
    project.run("dvc", "config", "core.no_scm", "true")
    assert "retrain needs a commit" in project.run("sentiment", "retrain", status=2).stderr
    project.run("dvc", "config", "core.no_scm", "false")
    shutil.rmtree(project.root / ".git")
    assert "retrain needs a commit" in project.run("sentiment", "retrain", status=2).stderr
    project.run("git", "init", "-q")
    assert "retrain needs a commit" in project.run("sentiment", "retrain", status=2).stderr
    tree = project.tree()
    assert tree.pop("reports/retrain.md").startswith(b"# Retraining: failed\n\nRetrain needs a commit")
    assert tree == before


def test_without_a_remote_a_push_fails_at_once(retraining: RetrainingProject, hook: type[Hook]) -> None:
    retraining.project.set_params({"evaluate.threshold.value": 0.45})
    process = retraining.retrain(2, "--push")
    assert "no remote origin" in process.stderr
    assert "Running stage" not in process.stdout
    assert retraining.report.startswith(
        "# Retraining: failed\n\n--push: this repository has no remote origin"
    )
    assert [content["outcome"] for content in hook.bodies] == ["failed"]


def test_push_that_fails_hides_no_outcome(
    retraining: RetrainingProject, hook: type[Hook], tmp_path: Path
) -> None:
    project, origin = retraining.project, tmp_path / "origin.git"
    project.run("git", "init", "-q", "--bare", str(origin))
    project.run("git", "remote", "add", "origin", str(origin))
    refuse = origin / "hooks/pre-receive"
    refuse.write_text("#!/bin/sh\necho the ledger is protected >&2\nexit 1\n")
    refuse.chmod(0o755)
    project.set_params({"evaluate.threshold.value": 0.45})
    process = retraining.retrain(2, "--push", "--exit-code")
    outcome = retraining.result["outcome"]
    assert process.stdout.splitlines()[-1].startswith(f"{outcome}: ")
    assert "the ledger is protected" in process.stderr
    assert "`git push origin ledger` publishes them" in process.stderr
    assert [content["outcome"] for content in hook.bodies] == [outcome]
    assert len(retraining.ledger) == 1

    refuse.unlink()
    retraining.retrain(EXIT_STATUSES[outcome], "--push", "--exit-code")
    assert (
        project.run("git", "rev-parse", "ledger").stdout
        == project.run("git", "--git-dir", str(origin), "rev-parse", "ledger").stdout
    )


def _comparable(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines without their times."""
    return [{name: value for name, value in line.items() if name != "created"} for line in ledger]


def test_terminated_retraining_ends_its_stages(
    retraining: RetrainingProject, hook: type[Hook], tmp_path: Path
) -> None:
    project, log = retraining.project, tmp_path / "log"
    project.set_params({"train.epochs": 500})
    process = project.start("sentiment", "retrain", log=log)
    wait_for(lambda: "epoch 2:" in log.read_text(), process)
    process.terminate()  # as a supervisor that signals this process only
    assert process.wait(PATIENCE_S) == 130
    assert "failed to reproduce 'train'" in log.read_text(), "the stage was not ended"
    require_idle(project.root)
    assert retraining.report.startswith("# Retraining: failed\n\nInterrupted by Ctrl-C or SIGTERM")
    assert [content["outcome"] for content in hook.bodies] == ["failed"]
    project.set_params({"train.epochs": 1})
    retraining.retrain()
    assert len(retraining.ledger) == 1


def test_killed_retraining_ends_as_one_that_was_not(retraining: RetrainingProject, tmp_path: Path) -> None:
    retraining.project.set_params({"train.epochs": 1})
    whole = retraining.copy(tmp_path / "whole")
    whole.retrain()
    generator = random.Random(1)  # noqa: S311
    for delay in sorted(generator.uniform(0, 20) for _ in range(3)):
        process = retraining.project.start("sentiment", "retrain")
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        kill(process)
    retraining.project.run("sentiment", "repair")
    retraining.retrain()
    assert _comparable(retraining.ledger) == _comparable(whole.ledger)
    assert (retraining.root / "dvc.lock").read_bytes() == (whole.root / "dvc.lock").read_bytes()
