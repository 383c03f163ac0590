"""Where a run comes from: commit and diff, input hashes, packages, processor; and what must be redacted."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

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

SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|_KEY|CREDENTIALS?)$", re.IGNORECASE)
ASSIGNED = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
SHORTEST = 6
"""Characters of a value that is looked for: a shorter one stands in any text by chance."""

HIDDEN = "<hidden>"


def redactor() -> Callable[[str], str]:
    """Return a function that shortens addresses in a text to what messages show, and hides known secrets.

    Known are those in the environment and `.env`: passwords of addresses, values of variables that are named
    as secrets are.
    """
    secrets = sorted(_known_secrets(), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return redact_urls_in(text, HIDDEN)

    return redact


def _known_secrets() -> set[str]:
    settings = load_settings()
    addresses = (settings.mlflow_tracking_uri, settings.tune_storage)
    found = {
        secret for address in addresses if address for secret in find_secrets(address.get_secret_value())
    }
    try:
        assigned = ASSIGNED.findall((repository_root() / ".env").read_text(encoding="utf-8"))
    except OSError:
        assigned = []
    variables = [*os.environ.items(), *assigned]
    found |= {value for name, value in variables if SECRET_NAME.search(name)}
    return {secret for secret in found if len(secret) >= SHORTEST}


def dvc_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return by path what DVC calls the MD5 of a file or, ending in `.dir`, of a folder.

    Each file is read once, also where it lies in several of the folders. Missing paths are left out.
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


LOCK = Path("requirements.lock")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)


def machine_tags() -> dict[str, str]:
    """Return tags of what computes: versions, processor, instruction sets, threads."""
    return {
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.dvc": importlib.metadata.version("dvc"),
        "cpu.threads": str(torch.get_num_threads()),
        **{f"cpu.{name}": value for name, value in detect_instruction_sets().items()},
    }


def installed_packages() -> str:
    """Return the installed versions of what `requirements.lock` pins, as a requirements file.

    Where a version is another than the pinned one, a comment says so. Without a lock: all that is installed.
    """
    try:
        pinned = dict(PINNED.findall(LOCK.read_text(encoding="utf-8")))
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
"""Tracked files that a pipeline run itself rewrites, and the store, which may be moved away.

They do not make the tree dirty; a run's inputs that `dvc.lock` of the commit does not name do
(`unnamed_inputs`).
"""

NOT_SHOWN = (":(exclude,glob)**/.env", ":(exclude,glob)**/.env.local")
"""Files of secrets, which git ignores unless someone forced it not to."""

COMMIT, DIRTY, DIRTY_BECAUSE = "git.commit", "git.dirty", "git.dirty_because"
EXPERIMENT = "dvc.experiment"
SOURCE_TAGS = (COMMIT, MLFLOW_GIT_COMMIT, DIRTY, DIRTY_BECAUSE, EXPERIMENT)

NAMED_CAUSES = 10
"""Changed paths that a tag names; the artifact has them all."""

DIFF_BYTES = 1_000_000
"""Of a diff that is kept."""


def source_tags(unnamed: tuple[str, ...] = ()) -> dict[str, str]:
    """Return tags for the git commit, whether the run differs from it, and the DVC experiment's name.

    The commit stands under MLflow's own name too, which the UI shows as the run's version.
    Outside a git repository, or in one without commits, there is nothing to say about the commit.

    Args:
        unnamed: inputs that the commit's `dvc.lock` does not name.
    """
    tags = {}
    commit = _commit()
    if commit:
        causes = [*_changed_paths(), *(f"{path} is not in its dvc.lock" for path in unnamed)]
        tags = {COMMIT: commit, MLFLOW_GIT_COMMIT: commit, DIRTY: "true" if causes else "false"}
        more = len(causes) - NAMED_CAUSES
        if causes:
            tags[DIRTY_BECAUSE] = "; ".join(
                causes[:NAMED_CAUSES] + ([f"and {more} more"] if more > 0 else [])
            )
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags[EXPERIMENT] = experiment
    return tags


def unnamed_inputs(hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the inputs whose MD5 the commit's `dvc.lock` does not have for that path.

    Whatever is in the working tree's `dvc.lock`: DVC rewrites it while it runs the stages.
    """
    named = hashes_in_lock((read_committed(str(paths.LOCK)) or b"").decode(errors="replace"))
    return tuple(path for path, md5 in hashes.items() if md5 not in named.get(path, set()))


def hashes_in_lock(text: str) -> dict[str, set[str]]:
    """Return by path the MD5s that a `dvc.lock` names, of dependencies and outputs; none of a corrupt one."""
    found: dict[str, set[str]] = {}
    for stage in locked_stages(text).values():
        for entry in [*(stage.get("deps") or []), *(stage.get("outs") or [])]:
            found.setdefault(str(entry.get("path")), set()).add(str(entry.get("md5")))
    return found


def locked_stages(text: str) -> dict[str, dict[str, Any]]:
    """Return the stages of a `dvc.lock` by name; none of a corrupt one."""
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return {}
    stages = content.get("stages") if isinstance(content, dict) else None
    return dict(stages) if isinstance(stages, dict) else {}


def tree_difference() -> str | None:
    """Return how the working tree differs from the commit: the diff of tracked files, names of the others.

    With `dvc.lock`, `params.yaml` and the metrics, so that the commit and the diff together rebuild the run.
    None where there is no commit. What git ignores, `.env` among it, is not in it.
    """
    if not _commit():
        return None
    diff = _git("diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *NOT_SHOWN) or ""
    content = diff.encode()
    if len(content) > DIFF_BYTES:
        kept = content[:DIFF_BYTES].decode(errors="ignore").rpartition("\n")[0]
        diff = f"{kept}\n# cut here: the diff has {len(content)} bytes\n"
    untracked = _git("ls-files", "--others", "--exclude-standard", "--", ".", *NOT_SHOWN) or ""
    names = "".join(f"# untracked, content not kept: {line}\n" for line in untracked.splitlines())
    return f"{names}{diff}{'' if diff.endswith(chr(10)) else chr(10)}"


def _commit() -> str | None:
    found = _git("rev-parse", "HEAD")
    return found.strip() if found else None


def _changed_paths() -> tuple[str, ...]:
    listed = _git("status", "--porcelain", "--", ".", *WRITTEN_BY_STAGES) or ""
    return tuple(line[3:] for line in listed.splitlines())


def _git(*arguments: str) -> str | None:
    """Return what git prints, None where it fails: no git, no repository, no commit."""
    printed = run_git(*arguments)
    return None if printed is None else printed.decode("utf-8", errors="replace")
