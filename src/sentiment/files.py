"""Atomic writes of output files, and MD5 hashes of files."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment.errors import UserError

if TYPE_CHECKING:  # the import takes time, which stages that write no table save
    import pandas as pd


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` on success, remove it on failure.

    The caller writes a file or a folder at that path. It is beside the target so that both are in one file
    system, where a rename is atomic. A folder replaces a folder; a file does not.

    Raises:
        UserError: the target is a folder, and the caller wrote a file.
    """
    temporary = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if not temporary.is_dir():
            require_file_target(target)
        if target.is_dir():  # `replace` cannot overwrite a folder that is not empty
            _remove(target)
        temporary.replace(target)
    finally:
        _remove(temporary)


def require_file_target(target: Path) -> None:
    """Raise UserError if the file to write is a folder, whose content would be lost.

    Args:
        target: path that the user named.

    Raises:
        UserError: it is a folder.
    """
    if target.is_dir():
        raise UserError(f"{target}: is a folder; name a file, such as {target / 'NAME'}")


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for temporary files, and remove it at the end, also after an exception.

    The path is fixed, so the next run removes what a killed process left in it.
    """
    _remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _remove(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file. Identical content produces identical files.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: "pd.DataFrame", numbers: str = "%.6f") -> None:
    """Write a table to a CSV file, without its index. Identical tables produce identical files.

    Args:
        path: path of the CSV file.
        table: table to write.
        numbers: format of floating-point numbers.
    """
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format=numbers, lineterminator="\n")


def _remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def compute_file_md5(path: Path) -> str:
    """Return the MD5 hash of a file, as in `dvc.lock` and `.dvc` files. The file is read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def compute_md5(content: bytes) -> str:
    """Return the MD5 hash of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
