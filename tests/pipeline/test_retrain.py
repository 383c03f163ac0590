"""`sentiment retrain`, which `make retrain` and the scheduled workflow call."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sentiment.training.checkpoint import STATE_FILE
from tests.project import ROOT, Project, kill, wait_for


def _report(project: Project) -> str:
    return (project.root / "reports/retrain.md").read_text()


def test_nothing_new_trains_nothing(project: Project) -> None:
    lock = (project.root / "dvc.lock").read_bytes()
    output = project.run("sentiment", "retrain").stdout
    assert "Running stage 'download'" in output
    assert "Running stage 'train'" not in output
    assert "No changes: no stage ran" in _report(project)
    assert (project.root / "dvc.lock").read_bytes() == lock


def test_report_compares_with_the_committed_state(project: Project) -> None:
    project.set_params({"evaluate.threshold.value": 0.4})
    project.run("sentiment", "retrain")
    assert "Stages that ran: evaluate." in _report(project)
    assert "| evaluate.threshold.value | 0.5" in _report(project)
    assert "metrics/evaluate.json" in _report(project)
    assert "`dvc.lock`: changed" in _report(project)


def test_report_names_stages_whose_results_are_in_the_cache(project: Project) -> None:
    for rate in (0.6, 0.5):
        project.set_params({"tokenize.oov_rate": rate})
        project.run("sentiment", "retrain")
        assert "Stages that ran: " + ("tokenize." if rate == 0.6 else "none.") in _report(project)
    assert "Stages restored from the DVC cache: tokenize." in _report(project)


def test_second_retraining_without_a_commit_reports_the_same(project: Project) -> None:
    project.set_params({"evaluate.threshold.value": 0.4})
    project.run("sentiment", "retrain")
    first = _report(project)
    project.run("sentiment", "retrain")
    assert _report(project) == first.replace("that ran: evaluate", "that ran: none")
    project.commit("a better threshold")
    project.run("sentiment", "retrain")
    assert "No changes" in _report(project)


def test_report_states_that_no_parameter_changed(project: Project) -> None:
    lock = project.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("python -m stages.evaluate", "python stages/evaluate.py"))
    project.commit("as if the command had been another one")
    project.run("sentiment", "retrain")
    assert "Stages that ran: evaluate." in _report(project) or "DVC cache: evaluate." in _report(project)
    assert "No parameter changed." in _report(project)
    assert "No metric changed." in _report(project)


def test_without_a_commit_nothing_runs(project: Project) -> None:
    before = project.tree()
    project.run("dvc", "config", "core.no_scm", "true")
    assert "compares with the last commit" in project.run("sentiment", "retrain", status=2).stderr
    project.run("dvc", "config", "core.no_scm", "false")
    shutil.rmtree(project.root / ".git")
    assert "compares with the last commit" in project.run("sentiment", "retrain", status=2).stderr
    project.run("git", "init", "-q")
    assert "compares with the last commit" in project.run("sentiment", "retrain", status=2).stderr
    assert project.tree() == before


def test_failing_stage_fails_the_job(project: Project) -> None:
    project.set_params({"train.epochs": 0})
    failed = project.run("sentiment", "retrain", status=2)
    assert "train.epochs" in failed.stderr


def test_failing_data_leaves_no_report(project: Project) -> None:
    split = {"train": 0.97, "validation": 0.01, "holdout": 0.01, "test": 0.01}
    project.set_params({"download.split": split, "download.limit": 20})
    failed = project.run("sentiment", "retrain", status=2)
    assert "the data could not be refreshed" in failed.stderr
    assert "reviews with label 0 are too few" in failed.stderr
    assert not (project.root / "reports/retrain.md").exists()


def _cached_by_the_workflow() -> list[list[str]]:
    """Return the paths that each of the workflow's steps saves or restores."""
    jobs = YAML(typ="safe").load(ROOT / ".github/workflows/retrain.yml")["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    return [step["with"]["path"].split() for step in steps if "actions/cache/" in step.get("uses", "")]


def test_workflow_restores_the_paths_that_it_saves() -> None:
    """GitHub finds a cache only under the list of paths that it was saved with."""
    assert len({tuple(paths) for paths in _cached_by_the_workflow()}) == 1


def _kill(project: Project, moment: str) -> None:
    """Start a retraining and kill its process group once a file matches the pattern."""
    process = project.start("sentiment", "retrain", CHECKPOINT_MINUTES="0.001")
    wait_for(lambda: list(project.root.glob(moment)), process)
    kill(process)


def _next_job(project: Project, folder: Path) -> Project:
    """Return a fresh clone with the files that the workflow's cache restores."""
    project.run("git", "clone", "--quiet", str(project.root), str(folder))
    for path in _cached_by_the_workflow()[0]:
        if (project.root / path).exists():
            shutil.copytree(project.root / path, folder / path, dirs_exist_ok=True)
    return Project(folder)


@pytest.mark.parametrize(
    ("moment", "restored"),
    [
        (f".checkpoints/*/{STATE_FILE}", "tokenize"),
        (f"mlruns/studies/*/*/checkpoints/*/{STATE_FILE}", "train"),
    ],
    ids=["train", "tune"],
)
def test_killed_job_resumes_in_the_next_one(
    moment: str, restored: str, project: Project, tmp_path: Path
) -> None:
    # A vocabulary of its own, so that there is a stage before training that need not run again.
    project.set_params({"tokenize.vocabulary_size": 1400, "train.batch_size": 4, "model.embedding_dim": 256})
    project.commit("trained by the next job")
    _kill(project, moment)
    later = _next_job(project, tmp_path / "next")
    later.run("dvc", "checkout", "--allow-missing")
    done = later.run("sentiment", "retrain")
    assert "resuming at epoch" in done.stderr
    assert f"Stage '{restored}' is cached" in done.stdout
    assert {run.info.status for run in later.runs("tags.stage = 'train'")} == {"FINISHED"}
