"""Outputs of two runs of a pipeline, compared by content: which file differs, and which value in it."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

from sentiment import paths
from sentiment.files import compute_file_md5
from sentiment.model.model_config import CONFIG_FILE

MAX_NAMED = 3
"""Maximum number of differing values that are named for a file."""

MAX_CHARACTERS = 60
"""Maximum length of a value in a message."""


class Outputs(Protocol):
    """Outputs of a pipeline, wherever they are."""

    def read(self, path: str) -> bytes | None:
        """Return the content of an output or of a file in one; None if it does not exist here."""

    def list_files(self, path: str) -> Mapping[str, str] | None:
        """Return the MD5 of each file of an output by its path; None if the output does not exist here."""


@dataclass(frozen=True)
class OutputsOnDisk:
    """Outputs in a folder.

    Attributes:
        root: root of the project that wrote them.
    """

    root: Path

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        return (self.root / path).read_bytes() if (self.root / path).is_file() else None

    def list_files(self, path: str) -> Mapping[str, str] | None:
        """Return the MD5 of each file of an output by its path; None if the output does not exist."""
        output = self.root / path
        if output.is_file():
            return {path: compute_file_md5(output)}
        files = sorted(file for file in output.rglob("*") if file.is_file())
        return {file.relative_to(self.root).as_posix(): compute_file_md5(file) for file in files} or None


@dataclass(frozen=True)
class Difference:
    """An output that two runs did not write with equal bytes.

    Attributes:
        path: path of the output, or of the first file in it that differs.
        message: what differs.
        is_digest_only: whether only digests of the code differ, which a model's configuration records.
    """

    path: str
    message: str
    is_digest_only: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def find_difference(path: str, before: Outputs, after: Outputs) -> Difference | None:
    """Return the first difference within an output; None if all its files are equal.

    A difference of digests of the code is returned only if there is no other one.

    Args:
        path: path of the output in `dvc.lock`.
        before: outputs of the first run.
        after: outputs of the second run.
    """
    old_files, new_files = before.list_files(path), after.list_files(path)
    if new_files is None:
        return Difference(path, "was not written")
    if old_files is None:
        return Difference(path, "has another MD5; the committed one is neither here nor in DVC's cache")
    digest_only = None
    for file in sorted({*old_files, *new_files}):
        if file not in new_files or file not in old_files:
            return Difference(file, f"was {'not written again' if file in old_files else 'only written now'}")
        if old_files[file] == new_files[file]:
            continue
        old, new = before.read(file), after.read(file)
        if old is None or new is None:
            return Difference(file, "has another MD5; the committed one is not in DVC's cache")
        if _replace_digests(old, before) != _replace_digests(new, after):
            return Difference(file, "; ".join(_describe(file, old, new)))
        digest_only = digest_only or Difference(
            file, "equal but for the digest of the code", is_digest_only=True
        )
    return digest_only


def _replace_digests(content: bytes, outputs: Outputs) -> bytes:
    """Replace the digest of the code and the name of the study, which is one as well, by fixed texts."""
    for candidate in paths.CANDIDATES:
        try:
            config = json.loads(outputs.read((paths.model(candidate) / CONFIG_FILE).as_posix()) or b"{}")
            origin = config.get("origin") or {}
        except (ValueError, AttributeError):
            continue
        for name in ("code", "study"):
            if isinstance(digest := origin.get(name), str) and digest:
                content = content.replace(digest.encode(), f"<{name}>".encode())
    return content


def _describe(path: str, old: bytes, new: bytes) -> Iterable[str]:
    """Describe how a file differs: the first values in JSON and CSV; the sizes of other files."""
    try:
        match Path(path).suffix:
            case ".json":
                lines = list(_compare_json(json.loads(old), json.loads(new), ""))
            case ".csv":
                lines = list(_compare_csv(_read_csv(old), _read_csv(new)))
            case _:
                lines = []
    except ValueError:
        lines = []
    omitted = [f"and {len(lines) - MAX_NAMED} more"] if len(lines) > MAX_NAMED else []
    return [*lines[:MAX_NAMED], *omitted] or [f"differs ({len(old):,} and {len(new):,} bytes)"]


def _compare_json(old: Any, new: Any, name: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _compare_json(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _compare_json(before, after, f"{name}[{index}]")
    elif old != new or type(old) is not type(new):
        yield f"{name} was {_shorten(old)}, is {_shorten(new)}"


def _read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def _compare_csv(old: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> Iterator[str]:
    header = old[0] if old else []
    for number, (before, after) in enumerate(zip_longest(old, new, fillvalue=())):
        for column, (was, value) in enumerate(zip_longest(before, after)):
            if was != value:
                name = header[column] if column < len(header) else f"column {column + 1}"
                yield f"{name} in row {number} was {_shorten(was)}, is {_shorten(value)}"


def _shorten(value: object) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
