"""Each file is read as specified by its format, or rejected with the location."""

from pathlib import Path

import pytest

from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource
from tests.inputs.tables import TABLES, Row, TableInput


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_table_is_read_correctly_or_rejected(
    case: TableInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, content in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = _rows_or_message(case, tmp_path)
    if isinstance(found, str):
        assert case.error is not None, found
        assert case.error in found
    else:
        assert found == case.rows


def _rows_or_message(case: TableInput, root: Path) -> tuple[Row, ...] | str:
    try:
        return _read(case, root)
    except UserError as error:
        return str(error)


def _read(case: TableInput, root: Path) -> tuple[Row, ...]:
    keys = {"paths": list(case.files)[:1], "labels": {"0": 0, "1": 1}, **case.source}
    columns = {"text": "text", "label": "label", **({"group": "group"} if case.grouped else {})}
    source = FilesSource.model_validate({"kind": "files", "name": "mine", "columns": columns, **keys})
    paths = tuple(path.replace("{root}", str(root)) for path in source.paths)
    batches = read_files(source.model_copy(update={"paths": paths}))
    return tuple((row["text"], row["label"], row["group"]) for batch in batches for row in batch.to_pylist())
