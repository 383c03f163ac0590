"""The metrics record the source files, and changes since then are reported."""

import hashlib
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from sentiment.data.build import build_splits
from sentiment.data.download_cache import recording_files
from sentiment.data.recorded_files import find_changed_files, warn_about_different_files
from sentiment.params import load_params
from tests.data.source_files import download_section, files_source, write_params, write_rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: pa.Table) -> Path:
    """A folder whose params.yaml reads two files, which download has read."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    rows = reviews.to_pylist()
    write_rows(Path("mine/a.csv"), rows[::2])
    write_rows(Path("mine/b.csv"), rows[1::2])
    write_params(Path(), download_section(sources=[files_source("mine/*.csv")]))
    with recording_files() as files:
        metrics = build_splits(load_params().download)
    Path("metrics").mkdir()
    Path("metrics/download.json").write_text(json.dumps({**metrics, "files": files}))
    return tmp_path


def _changed() -> list[str]:
    return find_changed_files(load_params().download)


def test_every_file_read_is_recorded(folder: Path) -> None:
    recorded = json.loads(Path("metrics/download.json").read_text())["files"]
    assert recorded == {
        name: {"bytes": len(content), "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}
        for name in ("mine/a.csv", "mine/b.csv")
        for content in [Path(name).read_bytes()]
    }
    assert _changed() == []


def test_changed_new_and_missing_files_are_reported(folder: Path) -> None:
    content = Path("mine/a.csv").read_bytes()
    Path("mine/a.csv").write_bytes(content[:-3] + b"0\r\n")
    Path("mine/b.csv").rename("mine/c.csv")
    assert _changed() == [
        "mine/a.csv: changed since download read it",
        "mine/c.csv: new, not read by download yet",
        "mine/b.csv: missing",
    ]
    for file in folder.glob("mine/*.csv"):
        file.unlink()
    assert _changed() == ["mine/a.csv: missing", "mine/b.csv: missing"]


def test_nothing_is_reported_with_a_record_of_no_files(folder: Path) -> None:
    Path("metrics/download.json").write_text("{}")
    assert _changed() == []


def test_missing_record_is_reported_since_dvc_may_restore_older_reviews(folder: Path) -> None:
    Path("metrics/download.json").unlink()
    (line,) = _changed()
    assert line.startswith("metrics/download.json: missing, for example since download failed")
    write_params(Path(), download_section())
    assert _changed() == []


@pytest.mark.slow
def test_file_that_differs_from_the_commit_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for command in (["init", "-q"], ["add", "metrics"], ["commit", "-qm", "read"]):
        subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *command], check=True
        )
    with Path("mine/a.csv").open("a") as file:
        file.write("Another review of some length.,1\r\n")
    Path("metrics/download.json").unlink()  # as DVC does before it runs the stage
    with recording_files() as files:
        build_splits(load_params().download)
    warn_about_different_files(files)
    logged = caplog.text
    assert "mine/a.csv: not the file that this commit recorded" in logged
    assert "mine/b.csv" not in logged
