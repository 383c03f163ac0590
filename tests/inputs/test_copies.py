"""Changed copies of test reviews are not trained on."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.params import load_params
from tests.data.source_files import download_section, files_source, write_params, write_rows
from tests.inputs.copies import COPIES


@pytest.mark.parametrize("changed", COPIES.values(), ids=COPIES.keys())
def test_copy_of_a_test_review_is_not_trained_on(
    changed: Callable[[str], str], reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"Café. {row['text']}", "label": str(row["label"])} for row in reviews.to_pylist()]
    write_rows(Path("all.jsonl"), rows)
    _gather(files_source("all.jsonl"))
    tested = pq.read_table(paths.reviews("test"))
    learned = pq.read_table(paths.reviews("train")).num_rows
    assert tested.num_rows > 10
    copies = [
        {"text": changed(text), "label": str(label)}
        for text, label in zip(tested["text"].to_pylist(), tested["label"].to_pylist(), strict=True)
    ]
    write_rows(Path("copies.jsonl"), copies)
    _gather(files_source("all.jsonl"), files_source("copies.jsonl", name="copies", role="train"))
    assert pq.read_table(paths.reviews("test")).equals(tested)
    assert pq.read_table(paths.reviews("train")).num_rows == learned


def test_split_ignores_case(reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    sizes = []
    for written in (str, str.upper):
        rows = [{"text": written(row["text"]), "label": str(row["label"])} for row in reviews.to_pylist()]
        write_rows(Path("all.jsonl"), rows)
        _gather(files_source("all.jsonl"))
        tables = [pq.read_table(paths.reviews(split), columns=["row"]) for split in paths.LABELLED_SPLITS]
        sizes.append([table["row"].to_pylist() for table in tables])
    assert sizes[0] == sizes[1]


def _gather(*sources: dict[str, object]) -> None:
    section = download_section(sources=list(sources))
    section["checks"] = {
        key: 1.0 if key in ("repeats", "duplicates") else value for key, value in section["checks"].items()
    }
    write_params(Path(), {**section, "checks": {**section["checks"], "imbalance": 0.5}})
    build_splits(load_params().download)
