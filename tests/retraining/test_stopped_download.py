from pathlib import Path

import pytest

from sentiment.params import load_params
from sentiment.params.data import DownloadParams
from sentiment.retraining.stopped_download import check_stopped_download


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DownloadParams:
    """The default parameters, in a folder with one file of new reviews."""
    loaded = load_params().download
    (tmp_path / "data/incoming").mkdir(parents=True)
    (tmp_path / "data/incoming/new.csv").touch()
    monkeypatch.chdir(tmp_path)
    return loaded


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "reviews: 9.0% are duplicates, more than download.checks.duplicates (5.0%); for example:",
            "reviews: 9.0% are duplicates, more than download.checks.duplicates (5.0%); correct the rows, or "
            "change download.checks in params.yaml",
        ),
        ("reviews: 3 invalid row(s); correct them", "reviews: 3 invalid row(s); correct them"),
        (
            "data/incoming/new.csv: no column label; columns found: text",
            "data/incoming/new.csv: no column label; columns found: text; correct the file",
        ),
        ("data/incoming/new.csv row 3: no label", "data/incoming/new.csv row 3: no label; correct the file"),
    ],
)
def test_content_of_data_is_the_cause(message: str, reason: str, params: DownloadParams) -> None:
    result = check_stopped_download([message, "data/incoming/new.csv row 1: why"], params)
    assert result is not None
    assert result.is_stopped
    assert result.reason == reason
    assert list(result.violations[0].examples) == ["data/incoming/new.csv row 1: why"]


@pytest.mark.parametrize(
    "message",
    [
        "data/gone/*.csv: matches no file",
        "cannot fetch https://example.org/new.csv: timed out",
        "data/incoming: files differ from its .dvc files",
        "the disk is full: cannot write to data/reviews",
        "data/incoming/new.csv.dvc: DVC cannot read the file",
    ],
)
def test_another_cause_is_a_failure(message: str, params: DownloadParams) -> None:
    assert check_stopped_download([message], params) is None
