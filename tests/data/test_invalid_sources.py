"""An invalid source fails the stage with status 2, one message and no output."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from sentiment.data import download as downloading
from stages.download import main
from tests.data.invalid_sources import Case, Place, contents, hosts, packed, settings, tables
from tests.data.source_files import download_section, files_source, write_params, write_rows
from tests.project import ROOT

CASES = [*hosts.CASES, *packed.CASES, *tables.CASES, *contents.CASES, *settings.CASES]
THROUGH_A_PROCESS = ["wrong MD5", "cut in the middle", "brackets in heaps", "many empty rows"]
"""One case of each kind, which is run in a process as by DVC."""


@pytest.fixture
def place(reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A repository without data, parameters and waits between retries."""
    for name in ("DVC_ROOT", "DOWNLOAD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "environment.yaml"):
        shutil.copy(ROOT / name, name)
    monkeypatch.setattr(downloading, "FIRST_WAIT", 0.001)
    return Place(reviews, monkeypatch)


def files_here() -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.parts[0] != ".cache"
    }


def downloads_here() -> list[Path]:
    """Return downloads that are not marked as partial."""
    return [path for path in Path(".cache").rglob("*") if path.is_file() and not path.name.startswith(".")]


def assert_reported(case: Case, status: object, message: str) -> None:
    assert status == 2
    assert "error: " in message
    for part in case.messages:
        assert part in message
    assert "Traceback" not in message
    assert "secret" not in message
    if case.rows_named is not None:
        assert sum(" row " in line for line in message.splitlines()[1:]) == case.rows_named


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_invalid_source_fails_the_stage(case: Case, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with place.stack:
        write_params(Path(), download_section(**case.prepare(place)))
        before = files_here()
        with pytest.raises(SystemExit) as ended:
            main()
    assert_reported(case, ended.value.code, capsys.readouterr().err)
    assert files_here() == before
    assert bool(downloads_here()) == case.keeps_download


def test_cases_have_distinct_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def run_stage(*before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "stages.download"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", THROUGH_A_PROCESS)
def test_invalid_source_fails_the_process(name: str, place: Place) -> None:
    (case,) = (case for case in CASES if case.name == name)
    with place.stack:
        write_params(Path(), download_section(**case.prepare(place)))
        before = files_here()
        done = run_stage()
    assert_reported(case, done.returncode, done.stderr)
    assert done.stdout == ""
    assert files_here() == before
    assert not downloads_here()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data", "reports"])
def test_full_disk(folder: str, place: Place) -> None:
    """The disk is a tmpfs of 100 kB in a separate namespace."""
    rows = [{**row, "text": f"{row['text']} {os.urandom(500).hex()}"} for row in place.rows]
    bad = [{"text": "\x00" * 5_000 + str(number), "label": 1} for number in range(40)]
    write_rows(Path("a.jsonl"), rows + bad)
    section = download_section(sources=[files_source("a.jsonl")], checks={"bad_rows": "quarantine"})
    write_params(Path(), section)
    Path(folder).mkdir()
    before = files_here()
    script = (
        f"mount -t tmpfs -o size=100k tmpfs {folder} || exit 77\n"
        f'"$@"; status=$?; find {folder} -type f; exit $status'
    )
    done = run_stage("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    if "unshare" in done.stderr or done.returncode == 77:
        pytest.skip("mounting a small disk needs privileges that are missing here")
    assert done.returncode == 2
    assert "the disk is full: cannot write to data/reviews or reports" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert files_here() == before
