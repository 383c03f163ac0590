from collections.abc import Callable
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.files import atomic_write, require_file_target, write_json


def _fail_after(target: Path, make: Callable[[Path], object]) -> None:
    with atomic_write(target) as temporary:
        make(temporary)
        raise RuntimeError


@pytest.mark.parametrize("make", [lambda path: path.write_text("half"), lambda path: path.mkdir()])
def test_failure_retains_the_old_file_and_removes_the_temporary_one(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    target = tmp_path / "metrics.json"
    target.write_text("whole")
    with pytest.raises(RuntimeError):
        _fail_after(target, make)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert target.read_text() == "whole"


def test_success_replaces_a_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]


@pytest.mark.parametrize("write", [lambda path: write_json(path, {}), require_file_target])
def test_file_does_not_replace_a_folder(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis").write_text("years of work")
    with pytest.raises(UserError, match="is a folder; name a file"):
        write(folder)
    assert (folder / "thesis").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="is a folder; name a file"):
        require_file_target(Path())


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})
    assert list(tmp_path.iterdir()) == []
