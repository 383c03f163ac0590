"""The actions that the workflows use, done with folders of this machine: checkout, caches, artifacts."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GLOB_SIGNS = "*?["


@dataclass(frozen=True)
class Job:
    """What an action can reach.

    Attributes:
        workspace: folder of the checkout, where steps run.
        temporary: `runner.temp`.
        address: URL of the repository.
        commit: commit that started the run.
        branch: branch of the commit.
        caches: the repository's Actions cache.
        artifacts: artifacts of this run.
    """

    workspace: Path
    temporary: Path
    address: str
    commit: str
    branch: str
    caches: Path
    artifacts: Path

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.workspace, check=True, capture_output=True)

    def find(self, path: str) -> Path:
        return self.workspace / path


class ActionError(Exception):
    """An action failed, as it would on a runner."""


def check_out(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Fetch the commit as actions/checkout does: alone, or with all branches and tags for a depth of 0."""
    depth = inputs.pop("fetch-depth", "1")
    assert inputs.pop("persist-credentials") == "false", "the token would stay in .git/config"
    job.git("init", "-q", "-b", job.branch)
    job.git("remote", "add", "origin", job.address)
    if depth == "0":
        job.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    else:
        target = f"+{job.commit}:refs/remotes/origin/{job.branch}"
        job.git("fetch", "-q", "--no-tags", f"--depth={depth}", "origin", target)
    job.git("checkout", "-q", "--force", "-B", job.branch, job.commit)
    job.git("branch", "-q", f"--set-upstream-to=origin/{job.branch}")
    return {}


def set_up_python(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Give the job the installed packages of this process; a job without this action has none."""
    assert (job.workspace / inputs.pop("cache-dependency-path")).is_file()
    inputs.pop("cache")
    inputs.pop("python-version")
    link_environment(job.workspace)
    return {}


def link_environment(repository: Path) -> None:
    """Make `.venv` of a clone an environment with the packages of this process, as `make setup` leaves it."""
    environment = repository / ".venv"
    environment.mkdir()
    for name in ("bin", "include", "lib", "lib64", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / ".installed").touch()


def restore_cache(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Copy the entry of the key, or the newest one with a prefix, saved under the same list of paths."""
    paths = inputs.pop("path").split()
    key, prefixes = inputs.pop("key"), inputs.pop("restore-keys", "").split()
    entries = [entry for entry in _list_entries(job.caches) if entry["paths"] == paths]
    for prefix in (key, *prefixes):
        found = [
            entry
            for entry in entries
            if entry["key"] == prefix or (prefix in prefixes and entry["key"].startswith(prefix))
        ]
        if found:
            content = Path(found[-1]["folder"]) / "content"
            _copy(content, job.workspace)
            return {"cache-hit": str(found[-1]["key"] == key).lower()}
    return {"cache-hit": ""}


def save_cache(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Save paths under a key that has not been saved before."""
    paths, key = inputs.pop("path").split(), inputs.pop("key")
    entries = _list_entries(job.caches)
    if any(entry["key"] == key and entry["paths"] == paths for entry in entries):
        return {}
    existing = [path for path in paths if (job.workspace / path).exists()]
    if existing:
        folder = job.caches / f"{len(entries):04}"
        for path in existing:
            target = folder / "content" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", job.workspace / path, target], check=True)
        entry = {"key": key, "paths": paths, "folder": str(folder)}
        (folder / "entry.json").write_text(json.dumps(entry))
    return {}


def _list_entries(caches: Path) -> list[dict[str, Any]]:
    """Return the entries of the cache, oldest first."""
    return [json.loads(file.read_text()) for file in sorted(caches.glob("*/entry.json"))]


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", target], check=True)


def upload_artifact(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Keep files, without hidden ones, below their nearest common folder; permissions are lost."""
    patterns = inputs.pop("path").split()
    overwrite = inputs.pop("overwrite", "false") == "true"
    on_none = inputs.pop("if-no-files-found", "warn")
    int(inputs.pop("retention-days"))
    folder = job.artifacts / inputs.pop("name")
    if folder.exists() and not overwrite:
        raise ActionError(f"an artifact {folder.name} exists already")
    found = {file for pattern in patterns for file in _expand(job, pattern)}
    if not found:
        if on_none == "error":
            raise ActionError(f"no files were found with {patterns}")
        return {}
    roots = {_find_root(job, pattern) for pattern in patterns}
    common = Path(os.path.commonpath(roots)) if len(roots) > 1 else roots.pop()
    common = common.parent if common.is_file() else common
    shutil.rmtree(folder, ignore_errors=True)
    for file in found:
        target = folder / file.relative_to(common)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return {}


def _find_root(job: Job, pattern: str) -> Path:
    """Return the part of a pattern without wildcards."""
    parts = job.find(pattern).parts
    fixed = [part for part in parts if not any(sign in part for sign in GLOB_SIGNS)]
    return Path(*parts[: len(fixed)])


def _expand(job: Job, pattern: str) -> list[Path]:
    root = _find_root(job, pattern)
    rest = job.find(pattern).relative_to(root)
    matches = [root] if rest == Path() else list(root.glob(str(rest)))
    files = [file for match in matches for file in ([match] if match.is_file() else match.rglob("*"))]
    names = {file: file.relative_to(root.parent).parts for file in files if file.is_file()}
    return [file for file, parts in names.items() if not any(part.startswith(".") for part in parts)]


def download_artifact(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Copy an artifact of this run to a folder."""
    source, target = job.artifacts / inputs.pop("name"), job.find(inputs.pop("path"))
    if not source.is_dir():
        raise ActionError(f"there is no artifact {source.name}")
    target.mkdir(parents=True, exist_ok=True)
    _copy(source, target)
    return {}


ACTIONS: dict[str, Callable[[Job, dict[str, str]], dict[str, str]]] = {
    "actions/checkout": check_out,
    "actions/setup-python": set_up_python,
    "actions/cache/restore": restore_cache,
    "actions/cache/save": save_cache,
    "actions/upload-artifact": upload_artifact,
    "actions/download-artifact": download_artifact,
}


def run_action(name: str, job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Run an action and return its outputs.

    Raises:
        ActionError: it failed.
        KeyError, AssertionError: the action or one of its inputs is not known here.
    """
    outputs = ACTIONS[name.partition("@")[0]](job, inputs)
    assert not inputs, f"{name}: unknown inputs {inputs}"
    return outputs
