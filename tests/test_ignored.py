"""Which files git ignores, also where a folder is a symbolic link, and which git and DVC track."""

import subprocess
from pathlib import Path

import pytest
from scmrepo.git import Git

from tests.project import ROOT

IGNORED = (".venv", ".cache", ".checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__")
WRITTEN = ("mlruns", "models", "plots", "reports", "dvc_plots", "data/reviews", "data/tokens", "data/mine")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "data/incoming").mkdir(parents=True)
    (folder / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def _untracked(folder: Path) -> list[str]:
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("name", [*IGNORED, *WRITTEN])
def test_folder_is_ignored_also_where_it_is_a_link(
    name: str, linked: bool, repository: Path, tmp_path: Path
) -> None:
    if linked and name == "reports":
        pytest.skip("git keeps the model card in this folder, so it cannot be a link")
    target = tmp_path / "elsewhere" if linked else repository / name
    target.mkdir()
    (target / "file").touch()
    if linked:
        (repository / name).symlink_to(target)
    assert _untracked(repository) == [".gitignore"]


def test_git_keeps_the_model_card_and_no_other_report(repository: Path) -> None:
    (repository / "reports").mkdir()
    for name in ("evaluation.md", "errors.md", "tune.csv"):
        (repository / "reports" / name).touch()
    assert _untracked(repository) == [".gitignore", "reports/evaluation.md"]


def test_incoming_files_are_tracked_by_git_and_dvc(repository: Path) -> None:
    names = [
        "data/incoming/.gitignore",
        "data/incoming/README.md",
        "data/incoming/a.csv",
        "data/incoming/b.dvc",
    ]
    for name in names:
        (repository / name).touch()
    assert _untracked(repository) == [".gitignore", *names]
    # DVC uses another implementation of .gitignore, which differs in some patterns, with and without a slash.
    asked = ("data/", "data/incoming/", "data/incoming/b.dvc")
    git = Git(str(repository))
    assert [name for name in asked if git.is_ignored(f"{repository}/{name}")] == []
