from collections.abc import Callable
from pathlib import Path

import pytest

from sentiment.files import atomic_write, write_json


def _make_half(target: Path, make: Callable[[Path], object]) -> None:
    with atomic_write(target) as temporary:
        make(temporary)
        raise RuntimeError


@pytest.mark.parametrize("make", [lambda path: path.write_text("half"), lambda path: path.mkdir()])
def test_failure_leaves_the_old_file_and_nothing_else(make: Callable[[Path], object], tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    target.write_text("whole")
    with pytest.raises(RuntimeError):
        _make_half(target, make)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert target.read_text() == "whole"


def test_success_replaces_file_and_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "figures.json", {"auc": float("nan")})
    assert list(tmp_path.iterdir()) == []
