"""What a stage reads, as DVC records it: code, parameters, package versions and data; on disk or in a commit.

A run is tagged with a digest of each of the four, so that it can be compared with any commit's `dvc.lock`.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import compute_file_md5, compute_md5
from sentiment.repository import DVC_SUFFIX, run_git

Kind = Literal["code", "params", "environment", "data"]
KINDS: tuple[Kind, ...] = ("code", "params", "environment", "data")

DIGEST_TAG = "inputs."
"""Prefix of the tags with the digests of a stage's inputs; the kind follows."""

CODE_FOLDERS = ("src/", "stages/")
"""Prefixes of dependencies that are code; the others are data."""


@dataclass(frozen=True)
class StageInputs:
    """Inputs of a stage.

    Attributes:
        values: for each kind, the inputs by path or dotted name: the MD5 that DVC records for a file or
            folder, None if it is missing or not known; the value of a parameter; the version of a package.
    """

    values: Mapping[Kind, Mapping[str, Any]]

    def compute_digests(self) -> dict[Kind, str]:
        """Compute one digest of the inputs of each kind."""
        return {kind: compute_md5(json.dumps(self.values[kind], sort_keys=True).encode()) for kind in KINDS}

    def find_differences(self, other: "StageInputs", kind: Kind) -> list[str]:
        """Return the sorted paths or dotted names of the inputs of a kind that differ between two stages."""
        own, others = self.values[kind], other.values[kind]
        return sorted(name for name in {*own, *others} if own.get(name, _ABSENT) != others.get(name, _ABSENT))


_ABSENT = object()


def parse_lock(text: str) -> dict[str, dict[str, Any]]:
    """Return the stages of a `dvc.lock` by name; empty for a corrupt file."""
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return {}
    stages = content.get("stages") if isinstance(content, dict) else None
    return dict(stages) if isinstance(stages, dict) else {}


def read_locked_inputs(entry: Mapping[str, Any]) -> StageInputs:
    """Return the inputs that a stage's entry of `dvc.lock` records."""
    dependencies = {dep["path"]: dep.get("md5") for dep in entry.get("deps") or ()}
    params = entry.get("params") or {}
    return StageInputs(
        {
            "code": {path: md5 for path, md5 in dependencies.items() if path.startswith(CODE_FOLDERS)},
            "params": _flatten(params.get(paths.PARAMS.name) or {}),
            "environment": dict(params.get(paths.ENVIRONMENT.name) or {}),
            "data": {path: md5 for path, md5 in dependencies.items() if not path.startswith(CODE_FOLDERS)},
        }
    )


def list_locked_outputs(lock: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Return the MD5 of each output of all stages in a `dvc.lock`, by path."""
    return {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs") or ()}


def find_older_inputs(lock: Mapping[str, Mapping[str, Any]], stage: str) -> list[str]:
    """Return the paths that a stage has read in another version than the `dvc.lock` records as written."""
    written = list_locked_outputs(lock)
    read = read_locked_inputs(lock.get(stage, {})).values["data"]
    return [path for path, md5 in read.items() if written.get(path, md5) != md5]


class Tree(Protocol):
    """Files of the project: those on disk, or those of a commit."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""

    def hash(self, path: str) -> str | None:
        """Return the MD5 that DVC records for a file or folder, or None if it does not exist."""


def collect_inputs(stage: Mapping[str, Any], tree: Tree, kinds: Iterable[Kind] = KINDS) -> StageInputs:
    """Return the inputs that a stage of `dvc.yaml` has in a tree.

    Args:
        stage: entry of `dvc.yaml`.
        tree: files of the project.
        kinds: kinds of inputs to collect; the others are empty.

    Raises:
        UserError: a file of parameters cannot be parsed.
    """
    dependencies = [str(dep) for dep in stage.get("deps") or ()]
    values: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind in kinds:
        if kind in {"code", "data"}:
            chosen = [path for path in dependencies if path.startswith(CODE_FOLDERS) == (kind == "code")]
            values[kind] = {path: tree.hash(path) for path in chosen}
    for entry in stage.get("params") or ():
        for file, names in entry.items() if isinstance(entry, Mapping) else [(paths.PARAMS.name, [entry])]:
            kind = "environment" if file == paths.ENVIRONMENT.name else "params"
            if kind in kinds:
                content = read_yaml(tree, file)
                values[kind] |= {name: _get(content, name) for name in names}
    return StageInputs({**values, "params": _flatten(values["params"])})


def read_yaml(tree: Tree, path: str) -> dict[str, Any]:
    """Return the content of a YAML file; empty if it does not exist.

    Raises:
        UserError: it is not valid YAML, or not a mapping.
    """
    try:
        content = _parse_yaml(tree.read(path) or b"")
    except (UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, Mapping | None):
        raise UserError(f"{path}: expected a mapping")
    return dict(content or {})


@lru_cache(maxsize=16)
def _parse_yaml(content: bytes) -> Any:
    """Parse YAML; several stages and commits have the same files, and parsing them takes most of the time."""
    return YAML(typ="safe", pure=True).load(content.decode())


def _get(content: Mapping[str, Any], name: str) -> Any:
    """Return the value at a dotted name; None if there is none."""
    node: Any = content
    for key in name.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            values |= _flatten(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def hash_folder(md5s: Mapping[str, str]) -> str:
    """Return the MD5 that DVC records for a folder, from those of its files by path in the folder."""
    # DVC's listing: JSON with a space after each comma and colon, sorted by path.
    listing = [
        {"md5": md5s[path], "relpath": path} for path in sorted(md5s, key=lambda path: path.split("/"))
    ]
    return f"{compute_md5(json.dumps(listing).encode())}.dir"


@dataclass
class Ignored:
    """Patterns of `.dvcignore` at the root; negated patterns are not supported."""

    patterns: list[str]

    @classmethod
    def parse(cls, content: bytes) -> "Ignored":
        """Read the patterns, without comments."""
        lines = (line.strip() for line in content.decode(errors="replace").splitlines())
        return cls([line for line in lines if line and not line.startswith("#")])

    def matches(self, path: str) -> bool:
        """Return whether DVC ignores a file, or a folder above it."""
        parts = PurePosixPath(path).parts
        return any(
            any(fnmatch(path, form) for form in (pattern, pattern.replace("**/", "")))
            if "/" in pattern
            else any(fnmatch(part, pattern) for part in parts)
            for pattern in self.patterns
        )


@dataclass
class WorkingTree:
    """Files on disk, below the working directory; each is hashed once.

    Attributes:
        known: MD5s of files and folders, None for one that does not exist.
    """

    known: dict[str, str | None] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        return Path(path).read_bytes() if Path(path).is_file() else None

    def hash(self, path: str) -> str | None:
        """Return the MD5 that DVC records for a file or folder, or None if it does not exist."""
        if path not in self.known:
            self.known[path] = self._hash(path)
        return self.known[path]

    def _hash(self, path: str) -> str | None:
        if Path(path).is_file():
            return compute_file_md5(Path(path))
        if not Path(path).is_dir():
            return None
        files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        return hash_folder(
            {
                file.relative_to(path).as_posix(): compute_file_md5(file)
                for file in files
                if not self._ignored.matches(file.as_posix()) and file.exists()
            }
        )

    @cached_property
    def _ignored(self) -> Ignored:
        return Ignored.parse(self.read(".dvcignore") or b"")


@dataclass
class CommitTree:
    """Files of a commit, read from git's objects."""

    commit: str

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if the commit lacks it."""
        return run_git("show", f"{self.commit}:./{path}")

    def hash(self, path: str) -> str | None:
        """Return the MD5 that DVC records for a file or folder, or None if the commit lacks it.

        A file that DVC tracks has the MD5 of its `.dvc` file. None also if DVC tracks a folder in the folder.
        """
        listed = run_git("ls-tree", "-r", "-z", "--name-only", self.commit, "--", path) or b""
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
        if names == [path]:
            return compute_md5(self._read_all([path])[path])
        names = [name for name in names if not self._ignored.matches(name)]
        contents = self._read_all(names)
        md5s = {name: compute_md5(content) for name, content in contents.items()}
        for name in names:
            if name.endswith(DVC_SUFFIX):
                (out,) = read_yaml(self, name).get("outs") or [{}]
                if str(out.get("md5", ".dir")).endswith(".dir"):
                    return None
                md5s[str(PurePosixPath(name).with_name(out["path"]))] = out["md5"]
        exists = names or not path.startswith(CODE_FOLDERS)
        return (
            hash_folder({os.path.relpath(name, path): md5 for name, md5 in md5s.items()}) if exists else None
        )

    @cached_property
    def _ignored(self) -> Ignored:
        return Ignored.parse(self.read(".dvcignore") or b"")

    def _read_all(self, names: list[str]) -> dict[str, bytes]:
        """Read files of the commit with one process of git."""
        request = "".join(f"{self.commit}:./{name}\n" for name in names).encode()
        process = subprocess.run(
            ["git", "cat-file", "--batch"], input=request, capture_output=True, check=True
        )
        contents, rest = {}, process.stdout
        for name in names:
            header, _, rest = rest.partition(b"\n")
            size = int(header.split()[-1])
            contents[name], rest = rest[:size], rest[size + 1 :]
        return contents
