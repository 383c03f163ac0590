"""What a run records so that it can be rebuilt: commit and diff, input hashes, packages, processor."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.data.locations import redact_urls_in
from sentiment.files import compute_file_md5
from sentiment.repository import read_committed, run_git
from sentiment.settings import find_secrets, load_settings, repository_root
from sentiment.training.fingerprint import detect_instruction_sets

if TYPE_CHECKING:
    from sentiment.tracking.run import Run

INPUT_TAG = "dvc.md5."
"""Prefix of the tags that hold the MD5 of each input, as `dvc.lock` records it; the path follows."""
COMMIT_TAG, DIRTY_TAG, DIRTY_BECAUSE_TAG = "git.commit", "git.dirty", "git.dirty_because"
EXPERIMENT_TAG = "dvc.experiment"
SOURCE_TAGS = (COMMIT_TAG, MLFLOW_GIT_COMMIT, DIRTY_TAG, DIRTY_BECAUSE_TAG, EXPERIMENT_TAG)

DIFF, PACKAGES = "source.diff", "packages.txt"
"""Names of artifacts."""


def log_provenance(run: "Run", inputs: Iterable[Path]) -> None:
    """Record what is needed to rebuild a run; a resumed run gets the values that hold now.

    Args:
        run: the run.
        inputs: files and folders that its stage reads; missing ones are skipped.
    """
    hashes = compute_dvc_hashes(inputs)
    tags = collect_source_tags(find_inputs_missing_from_lock(hashes))
    run.replace_tags(
        "git.", {name.removeprefix("git."): tags[name] for name in tags if name.startswith("git.")}
    )
    run.tag({**tags, **collect_environment_tags(), **_input_tags(hashes)})
    run.log_text(PACKAGES, list_installed_packages())
    redact = build_redactor()
    diff = compute_working_tree_diff() if tags.get(DIRTY_TAG) == "true" else None
    if diff is not None:
        run.log_text(DIFF, redact(diff))
    for file in (paths.PARAMS, paths.metrics("download")):
        if file.is_file():
            run.log_text(file.name, redact(file.read_text(encoding="utf-8", errors="replace")))


def collect_evaluation_tags(inputs: Iterable[Path]) -> dict[str, str]:
    """Return tags of the code, machine and data behind test metrics; they go below `evaluate.`."""
    hashes = compute_dvc_hashes(inputs)
    source = collect_source_tags(find_inputs_missing_from_lock(hashes))
    return {
        **{name: value for name, value in source.items() if name.startswith("git.")},
        **collect_environment_tags(),
        **_input_tags(hashes),
    }


def _input_tags(hashes: Mapping[str, str]) -> dict[str, str]:
    return {f"{INPUT_TAG}{path}": md5 for path, md5 in hashes.items()}


SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|_KEY|CREDENTIALS?)$", re.IGNORECASE)
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
MIN_SECRET_LENGTH = 6
"""A shorter value occurs in any text by chance, so it is not redacted."""

REDACTED = "<hidden>"


def build_redactor() -> Callable[[str], str]:
    """Return a function that removes known secrets, and queries and credentials of URLs, from a text.

    Known secrets come from the environment and `.env`: passwords in addresses, and values of variables whose
    names mark them as secret.
    """
    secrets = sorted(_find_known_secrets(), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, REDACTED)
        return redact_urls_in(text, REDACTED)

    return redact


def _find_known_secrets() -> set[str]:
    settings = load_settings()
    addresses = (settings.mlflow_tracking_uri, settings.tune_storage)
    found = {
        secret for address in addresses if address for secret in find_secrets(address.get_secret_value())
    }
    try:
        assigned = ASSIGNMENT.findall((repository_root() / ".env").read_text(encoding="utf-8"))
    except OSError:
        assigned = []
    variables = [*os.environ.items(), *assigned]
    found |= {value for name, value in variables if SECRET_NAME.search(name)}
    return {secret for secret in found if len(secret) >= MIN_SECRET_LENGTH}


def compute_dvc_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return DVC's MD5 by path: of a file, or (with the suffix `.dir`) of a folder.

    Each file is read once, even if it is in several of the folders. Missing paths are skipped.
    """
    of_files: dict[Path, str] = {}
    found = {}
    for path in paths:
        if path.is_dir():
            tree = Tree()  # type: ignore[no-untyped-call]
            for file in sorted(inner for inner in path.rglob("*") if inner.is_file()):
                md5 = of_files[file] = of_files.get(file) or compute_file_md5(file)
                tree.add(file.relative_to(path).parts, Meta(), HashInfo("md5", md5))
            tree.digest()
            found[path.as_posix()] = str(tree.hash_info.value)
        elif path.is_file():
            of_files[path] = of_files.get(path) or compute_file_md5(path)
            found[path.as_posix()] = of_files[path]
    return found


REQUIREMENTS = Path("requirements.lock")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)


def collect_environment_tags() -> dict[str, str]:
    """Return tags of the machine and its software: versions, processor, instruction sets, threads."""
    return {
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.dvc": importlib.metadata.version("dvc"),
        "cpu.threads": str(torch.get_num_threads()),
        **{f"cpu.{name}": value for name, value in detect_instruction_sets().items()},
    }


def list_installed_packages() -> str:
    """Return the installed versions of the packages in `requirements.lock`, as a requirements file.

    A comment marks each version that differs from the pinned one. Without a lock file, all installed packages
    are listed.
    """
    try:
        pinned = dict(PINNED.findall(REQUIREMENTS.read_text(encoding="utf-8")))
    except OSError:
        pinned = {}
    names = pinned or {dist.name: "" for dist in importlib.metadata.distributions()}
    lines = []
    for name in sorted(names, key=str.lower):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"# {name}=={pinned[name]}: not installed")
            continue
        differs = pinned and installed.partition("+")[0] != pinned[name].partition("+")[0]
        lines.append(f"{name}=={installed}" + (f"  # locked: {pinned[name]}" if differs else ""))
    return "\n".join(lines) + "\n"


WRITTEN_BY_STAGES = (f":!{paths.LOCK}", f":!{paths.METRICS}", ":!mlruns")
"""Tracked files that a pipeline run itself rewrites, and the store, which may have been moved.

They do not make the tree dirty. Inputs that the commit's `dvc.lock` does not name do
(`find_inputs_missing_from_lock`).
"""

ENV_FILES = (":(exclude,glob)**/.env", ":(exclude,glob)**/.env.local")
"""Files of secrets. Git ignores them unless they were added with force, so the diff excludes them too."""

MAX_NAMED_CAUSES = 10
"""Most changed paths that the tag lists; the artifact `source.diff` has all of them."""

MAX_DIFF_BYTES = 1_000_000


def collect_source_tags(unnamed: tuple[str, ...] = ()) -> dict[str, str]:
    """Return tags for the git commit, whether the run differs from it, and the DVC experiment's name.

    The commit is also set under MLflow's own tag, which the UI shows as the run's version. Outside a git
    repository, or in one without commits, the tags of the commit are left out.

    Args:
        unnamed: inputs that the commit's `dvc.lock` does not name.
    """
    tags = {}
    commit = _find_commit()
    if commit:
        causes = [*_changed_paths(), *(f"{path} is not in its dvc.lock" for path in unnamed)]
        tags = {COMMIT_TAG: commit, MLFLOW_GIT_COMMIT: commit, DIRTY_TAG: "true" if causes else "false"}
        more = len(causes) - MAX_NAMED_CAUSES
        if causes:
            tags[DIRTY_BECAUSE_TAG] = "; ".join(
                causes[:MAX_NAMED_CAUSES] + ([f"and {more} more"] if more > 0 else [])
            )
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags[EXPERIMENT_TAG] = experiment
    return tags


def find_inputs_missing_from_lock(hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the inputs whose MD5 the commit's `dvc.lock` does not have for that path.

    The working tree's `dvc.lock` is not consulted: DVC rewrites it while it runs the stages.
    """
    locked = hashes_in_lock((read_committed(str(paths.LOCK)) or b"").decode(errors="replace"))
    return tuple(path for path, md5 in hashes.items() if md5 not in locked.get(path, set()))


def hashes_in_lock(text: str) -> dict[str, set[str]]:
    """Return the MD5s of dependencies and outputs in a `dvc.lock` by path; empty for a corrupt file."""
    found: dict[str, set[str]] = {}
    for stage in parse_lock(text).values():
        for entry in [*(stage.get("deps") or []), *(stage.get("outs") or [])]:
            found.setdefault(str(entry.get("path")), set()).add(str(entry.get("md5")))
    return found


def parse_lock(text: str) -> dict[str, dict[str, Any]]:
    """Return the stages of a `dvc.lock` by name; empty for a corrupt file."""
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return {}
    stages = content.get("stages") if isinstance(content, dict) else None
    return dict(stages) if isinstance(stages, dict) else {}


def compute_working_tree_diff() -> str | None:
    """Return the diff of tracked files against the commit, preceded by the names of untracked files.

    The diff includes `dvc.lock`, `params.yaml` and the metrics, so that commit and diff together rebuild the
    run. Files that git ignores, such as `.env`, are not in it. Returns None if there is no commit.
    """
    if not _find_commit():
        return None
    diff = _git("diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *ENV_FILES) or ""
    content = diff.encode()
    if len(content) > MAX_DIFF_BYTES:
        head = content[:MAX_DIFF_BYTES].decode(errors="ignore").rpartition("\n")[0]
        diff = f"{head}\n# truncated: the diff has {len(content)} bytes\n"
    untracked = _git("ls-files", "--others", "--exclude-standard", "--", ".", *ENV_FILES) or ""
    names = "".join(f"# untracked, content not recorded: {line}\n" for line in untracked.splitlines())
    return f"{names}{diff}{'' if diff.endswith(chr(10)) else chr(10)}"


def _find_commit() -> str | None:
    found = _git("rev-parse", "HEAD")
    return found.strip() if found else None


def _changed_paths() -> tuple[str, ...]:
    listed = _git("status", "--porcelain", "--", ".", *WRITTEN_BY_STAGES) or ""
    return tuple(line[3:] for line in listed.splitlines())


def _git(*arguments: str) -> str | None:
    """Return the output of a git command; None if it fails (no git, no repository, no commit)."""
    printed = run_git(*arguments)
    return None if printed is None else printed.decode("utf-8", errors="replace")
