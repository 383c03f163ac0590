"""`sentiment clean` removes only files that nothing needs."""

import os
import time
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from tests.project import Project, kill, wait_for

FILE = "data/incoming/week-47.csv"


def _cached(project: Project) -> set[Path]:
    return {path for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file()}


def _version(project: Project, text: str, *, commit: bool = True) -> Path:
    """Track a new version of a file, commit it, and return its path in the cache."""
    before = _cached(project)
    (project.root / FILE).unlink(missing_ok=True)
    (project.root / FILE).write_text(f"text,label\n{text},1\n")
    project.run("dvc", "add", "--quiet", FILE)
    if commit:
        project.commit(text)
    (added,) = _cached(project) - before
    return added


def _backdate(folder: Path, days: float) -> None:
    then = time.time() - days * 86400
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_cache_retains_files_of_commits_tags_and_experiments(project: Project) -> None:
    needed = _cached(project)
    tagged = _version(project, "In a release")
    project.run("git", "tag", "v1")
    old = _version(project, "In an old commit, and no stage can make it")
    stashed = _version(project, "In a stash", commit=False)
    project.run("git", "stash", "--include-untracked")
    dropped = _version(project, "Never committed", commit=False)
    last_but_one = _version(project, "Before the last commit")
    last = _version(project, "In the last commit")
    (project.root / FILE).unlink()
    (project.root / FILE).write_text("text,label\nIn an experiment,1\n")
    project.run("dvc", "exp", "run", "--name", "other", "--temp", "data/incoming/week-47.csv.dvc")
    everything = _cached(project)
    listed = project.run("sentiment", "clean", "--commits", "2").stdout
    assert "DVC cache: 1 not needed" in listed
    assert "can be removed" in listed
    assert _cached(project) == everything
    project.run("sentiment", "clean", "--commits", "2", "--yes")
    assert everything - _cached(project) == {dropped}
    # Also the metrics of each stage, which only the run cache has, and without which it restores nothing.
    assert {tagged, old, stashed, last_but_one, last, *needed} <= _cached(project)
    assert "DVC cache: 0 not needed" in project.run("sentiment", "clean", "--commits", "2").stdout


def test_running_stage_is_left_alone(project: Project) -> None:
    process = project.start("dvc", "repro", "--force", "--single-item", "tune")
    try:
        locks = project.root / ".dvc/tmp/rwlock"
        wait_for(lambda: locks.exists() and "models/tuned" in locks.read_text(), process)
        refused = project.run("sentiment", "clean", "--yes", status=2).stderr
        assert "processes are using" in refused
        assert f"process {process.pid}" in refused
    finally:
        kill(process)
    project.run("sentiment", "clean")  # what was killed runs no more


def test_running_training_without_dvc_is_left_alone(project: Project) -> None:
    folder = project.root / ".checkpoints/some-run"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        _backdate(folder, 30)
        refused = project.run("sentiment", "clean", "--yes", status=2).stderr
        assert ".checkpoints/some-run/.lock" in refused
    project.run("sentiment", "clean", "--yes")
    assert not folder.exists()


@pytest.fixture
def store(project: Project) -> MlflowClient:
    """The project's own store, with an experiment."""
    (project.root / "mlruns").mkdir(exist_ok=True)
    uri = f"sqlite:///{project.root}/mlruns/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    client.create_experiment("sentiment", (project.root / "mlruns/artifacts").as_uri())
    return client


def test_stores_retain_runs_and_studies_in_use(project: Project, store: MlflowClient) -> None:
    experiment = store.get_experiment_by_name("sentiment")
    assert experiment is not None
    kept, deleted = (store.create_run(experiment.experiment_id).info.run_id for _ in range(2))
    artifacts = project.root / "mlruns/artifacts"
    for run in (kept, deleted):
        store.log_text(run, "A picture.", "picture.txt")
    store.delete_run(deleted)
    (artifacts / ("0" * 32)).mkdir()  # of a run that the store does not know
    for number in range(4):
        (project.root / f"mlruns/studies/tune-{number}/0").mkdir(parents=True)
        _backdate(project.root / f"mlruns/studies/tune-{number}", number)
    for name, days in (("old", 20), ("new", 1)):
        (project.root / f".cache/downloads/{name}").mkdir(parents=True)
        _backdate(project.root / f".cache/downloads/{name}", days)

    project.run("sentiment", "clean", "--days", "14", "--studies", "2", "--yes")
    assert {path.name for path in (project.root / ".cache/downloads").iterdir()} == {"new"}
    assert {path.name for path in (project.root / "mlruns/studies").iterdir()} == {"tune-0", "tune-1"}
    assert {path.name for path in artifacts.iterdir()} == {kept, deleted}  # deleted today: may be restored

    project.run("sentiment", "clean", "--days", "0", "--yes")
    assert {path.name for path in artifacts.iterdir()} == {kept}
    assert [run.info.run_id for run in store.search_runs([experiment.experiment_id])] == [kept]


def test_cache_that_others_may_use_is_left_alone(project: Project, tmp_path: Path) -> None:
    (project.root / ".dvc/cache").rename(tmp_path / "shared")
    (project.root / ".dvc/cache").symlink_to(tmp_path / "shared")
    assert "DVC cache: skipped" in project.run("sentiment", "clean", "--yes").stdout


def test_nothing_is_removed_without_git_history(project: Project) -> None:
    dropped = _version(project, "Superseded")
    _version(project, "In the last commit")
    (project.root / ".git").rename(project.root / ".no-git")
    assert "nothing was removed" in project.run("sentiment", "clean", "--yes", status=2).stderr
    assert dropped.exists()
