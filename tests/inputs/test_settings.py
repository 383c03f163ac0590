"""Ambiguous parameters are rejected, and the sample covers every file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sentiment.data.splits import read_source
from sentiment.params import load_params
from sentiment.params.sources import FilesSource
from tests.data.source_files import download_section, files_source, write_params, write_rows


@pytest.mark.parametrize(
    "labels",
    [{1: 1, "1": 0}, {1: 1, "1.0": 0}, {True: 1, "true": 0}],
    ids=["number and text", "with and without a fraction", "truth value and text"],
)
def test_one_label_in_two_notations_is_an_error(labels: dict[Any, int]) -> None:
    source = files_source("a.csv", labels=labels)
    with pytest.raises(ValidationError, match="label"):
        FilesSource.model_validate(source)


def test_sample_covers_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    for file in ("a", "b", "c"):
        rows = [{"text": f"{file} {row}", "label": str(row % 2)} for row in range(200)]
        write_rows(Path(f"{file}.csv"), rows)
    write_params(Path(), download_section(sources=[files_source("*.csv")], limit=60))
    params = load_params().download
    taken = [row for batch in read_source(params.sources[0], params) for row in batch.to_pylist()]
    assert len(taken) == 60
    assert sum(row["label"] for row in taken) == 30
    for file in ("a", "b", "c"):
        assert sum(row["text"].startswith(file) for row in taken) > 8
