"""Output files: written completely or not at all, and matched by their MD5."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # stages that write no table need not wait for the import
    import pandas as pd


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it there on success, remove it on any failure.

    The caller makes a file or a folder at the path it gets. Beside the target, so that the move is one
    rename inside a file system.
    """
    temporary = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if target.is_dir():  # a folder with files in it cannot be renamed over
            _remove(target)
        temporary.replace(target)
    finally:
        _remove(temporary)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for files on their way, and remove it whatever happens.

    Its name is fixed, so that what a killed process left there goes with the next run.
    """
    _remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _remove(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is equal byte for byte when the content is equal; NaN is an error, not a token."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: Path, table: "pd.DataFrame", numbers: str = "%.6f") -> None:
    """Write a table without its index, equal byte for byte when the rows are equal.

    numbers: how those with a fraction are written.
    """
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format=numbers, lineterminator="\n")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def compute_file_md5(path: Path) -> str:
    """Return the MD5 of a file as `dvc.lock` and `.dvc` files have it; read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def compute_md5(content: bytes) -> str:
    """Return the MD5 of content that is in memory."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
