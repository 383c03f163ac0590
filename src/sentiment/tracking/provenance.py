"""Provenance of a run: commit, diff, hashes of inputs, installed packages and processor."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from sentiment import paths
from sentiment.data.locations import redact_urls_in
from sentiment.environment import PINNED, REQUIREMENTS, get_public_version, read_stages
from sentiment.files import compute_file_md5
from sentiment.repository import read_committed, run_git
from sentiment.settings import find_secrets, load_settings, repository_root
from sentiment.stage_inputs import DIGEST_TAG, WorkingTree, collect_inputs, parse_lock

if TYPE_CHECKING:
    from sentiment.tracking.run import Run

INPUT_TAG = "dvc.md5."
"""Prefix of the tags with the MD5 of each input, as `dvc.lock` records it; the input's path follows."""
COMMIT_TAG, DIRTY_TAG, DIRTY_BECAUSE_TAG = "git.commit", "git.dirty", "git.dirty_because"
EXPERIMENT_TAG = "dvc.experiment"
SOURCE_TAGS = (COMMIT_TAG, MLFLOW_GIT_COMMIT, DIRTY_TAG, DIRTY_BECAUSE_TAG, EXPERIMENT_TAG)

DIFF, PACKAGES = "source.diff", "packages.txt"
"""Artifacts of a run: the diff of the working tree, and the installed packages."""


def log_provenance(run: "Run", stage: str, inputs: Iterable[Path]) -> None:
    """Log what is needed to reproduce a run; in a resumed run, current values replace the earlier ones.

    Args:
        run: run to log to.
        stage: name of the run's stage in `dvc.yaml`.
        inputs: files and folders that the run's stage reads; missing ones are skipped.
    """
    hashes = compute_dvc_hashes(inputs)
    tags = collect_source_tags(find_inputs_missing_from_lock(hashes))
    run.replace_tags(
        "git.", {name.removeprefix("git."): tags[name] for name in tags if name.startswith("git.")}
    )
    digests = _collect_digest_tags(stage, hashes)
    run.tag({**tags, **collect_environment_tags(), **_input_tags(hashes), **digests})
    run.log_text(PACKAGES, list_installed_packages())
    redact = build_redactor()
    diff = compute_working_tree_diff() if tags.get(DIRTY_TAG) == "true" else None
    if diff is not None:
        run.log_text(DIFF, redact(diff))
    elif any(artifact.path == DIFF for artifact in run.store.client.list_artifacts(run.id)):
        run.log_text(DIFF, "")  # a resumed run, whose tree was dirty before: MLflow cannot delete artifacts
    for file in (paths.PARAMS, paths.metrics("download")):
        if file.is_file():
            run.log_text(file.name, redact(file.read_text(encoding="utf-8", errors="replace")))


def collect_evaluation_tags(inputs: Iterable[Path]) -> dict[str, str]:
    """Return tags of the code, machine and data of test metrics, without the prefix `evaluate.`."""
    hashes = compute_dvc_hashes(inputs)
    source = collect_source_tags(find_inputs_missing_from_lock(hashes))
    return {
        **{name: value for name, value in source.items() if name.startswith("git.")},
        **collect_environment_tags(),
        **_input_tags(hashes),
    }


def _collect_digest_tags(stage: str, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return tags with the digests of a stage's inputs, which equal those of its entry in `dvc.lock`."""
    digests = collect_inputs(read_stages()[stage], WorkingTree({**hashes})).compute_digests()
    return {f"{DIGEST_TAG}{kind}": digest for kind, digest in digests.items()}


def _input_tags(hashes: Mapping[str, str]) -> dict[str, str]:
    return {f"{INPUT_TAG}{path}": md5 for path, md5 in hashes.items()}


SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|_KEY|CREDENTIALS?)$", re.IGNORECASE)
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
MIN_SECRET_LENGTH = 6
"""Minimum length of a secret that is redacted. Shorter values occur in texts by chance."""

REDACTED = "<hidden>"


def build_redactor() -> Callable[[str], str]:
    """Return a function that redacts known secrets, and credentials and queries of URLs, in a text.

    Known secrets are the passwords in configured addresses, and the values of variables in the environment
    and in `.env` whose names match `SECRET_NAME`.
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
    secrets = {
        secret for address in addresses if address for secret in find_secrets(address.get_secret_value())
    }
    try:
        env_file = ASSIGNMENT.findall((repository_root() / ".env").read_text(encoding="utf-8"))
    except OSError:
        env_file = []
    variables = [*os.environ.items(), *env_file]
    secrets |= {value for name, value in variables if SECRET_NAME.search(name)}
    return {secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}


def compute_dvc_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Compute the MD5 that DVC records for each file and folder; that of a folder has the suffix `.dir`.

    Each file is read once, even if it is in several of the folders. Missing paths are skipped.

    Returns:
        MD5s by path.
    """
    file_md5s: dict[Path, str] = {}
    md5s = {}
    for path in paths:
        if path.is_dir():
            tree = Tree()  # type: ignore[no-untyped-call]
            for file in sorted(inner for inner in path.rglob("*") if inner.is_file()):
                md5 = file_md5s[file] = file_md5s.get(file) or compute_file_md5(file)
                tree.add(file.relative_to(path).parts, Meta(), HashInfo("md5", md5))
            tree.digest()
            md5s[path.as_posix()] = str(tree.hash_info.value)
        elif path.is_file():
            file_md5s[path] = file_md5s.get(path) or compute_file_md5(path)
            md5s[path.as_posix()] = file_md5s[path]
    return md5s


def collect_environment_tags() -> dict[str, str]:
    """Return tags of the machine and its software: versions, processor, instruction sets.

    The number of threads is a parameter (`train.threads`, `tune.threads`), not a property of the machine.
    """
    # Not at the top: reading runs does not need torch, whose import takes seconds.
    import torch

    from sentiment.training.fingerprint import detect_instruction_sets

    return {
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.dvc": importlib.metadata.version("dvc"),
        **{f"cpu.{name}": value for name, value in detect_instruction_sets().items()},
    }


def list_installed_packages() -> str:
    """Return the installed versions of the packages in `requirements.lock`, as a requirements file.

    A comment marks each version that differs from the pinned version. If `requirements.lock` does not exist,
    all installed packages are listed.
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
        differs = pinned and get_public_version(installed) != get_public_version(pinned[name])
        lines.append(f"{name}=={installed}" + (f"  # locked: {pinned[name]}" if differs else ""))
    return "\n".join(lines) + "\n"


STAGE_OUTPUTS = (f":!{paths.LOCK}", f":!{paths.METRICS}", f":!{paths.MODEL_CARD}", ":!mlruns")
"""Pathspecs that exclude the tracked files that a pipeline run rewrites, and the tracking store.

Their changes do not make the working tree dirty. Inputs that are missing from the commit's `dvc.lock` do
(`find_inputs_missing_from_lock`).
"""

ENV_FILES = (":(exclude,glob)**/.env", ":(exclude,glob)**/.env.local")
"""Pathspecs that exclude files with secrets from the diff, even if they were added to git by force."""

MAX_NAMED_CAUSES = 10
"""Maximum number of changes that the tag lists; the artifact `source.diff` has all of them."""

MAX_DIFF_BYTES = 1_000_000


def collect_source_tags(missing_inputs: tuple[str, ...] = ()) -> dict[str, str]:
    """Return tags with the git commit, whether the working tree is dirty and why, and the DVC experiment.

    The commit is also the value of MLflow's own tag, which the UI shows as the run's version. Outside a git
    repository, or in one without commits, the tags of the commit are omitted.

    Args:
        missing_inputs: paths of inputs that are missing from the commit's `dvc.lock`.
    """
    tags = {}
    commit = _read_commit()
    if commit:
        causes = [*_find_changed_paths(), *(f"{path} is not in its dvc.lock" for path in missing_inputs)]
        tags = {COMMIT_TAG: commit, MLFLOW_GIT_COMMIT: commit, DIRTY_TAG: "true" if causes else "false"}
        omitted = len(causes) - MAX_NAMED_CAUSES
        if causes:
            tags[DIRTY_BECAUSE_TAG] = "; ".join(
                causes[:MAX_NAMED_CAUSES] + ([f"and {omitted} more"] if omitted > 0 else [])
            )
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags[EXPERIMENT_TAG] = experiment
    return tags


def find_inputs_missing_from_lock(hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths of inputs whose MD5 is not in the commit's `dvc.lock`.

    The working tree's `dvc.lock` is not used, since DVC rewrites it while it runs stages.

    Args:
        hashes: MD5s of the inputs by path.
    """
    locked = _parse_lock_hashes((read_committed(str(paths.LOCK)) or b"").decode(errors="replace"))
    return tuple(path for path, md5 in hashes.items() if md5 not in locked.get(path, set()))


def _parse_lock_hashes(text: str) -> dict[str, set[str]]:
    """Return the MD5s of all dependencies and outputs in a `dvc.lock`, by path; empty for a corrupt file."""
    md5s: dict[str, set[str]] = {}
    for stage in parse_lock(text).values():
        for entry in [*(stage.get("deps") or []), *(stage.get("outs") or [])]:
            md5s.setdefault(str(entry.get("path")), set()).add(str(entry.get("md5")))
    return md5s


def compute_working_tree_diff() -> str | None:
    """Return the diff of tracked files against the commit, preceded by the names of untracked files.

    The diff includes `dvc.lock`, `params.yaml` and the metrics, so that a run can be reproduced from commit
    and diff. It does not contain files that git ignores, such as `.env`.

    Returns:
        The diff, truncated to `MAX_DIFF_BYTES`; None if there is no commit.
    """
    if not _read_commit():
        return None
    diff = (
        _run_git_text("diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *ENV_FILES)
        or ""
    )
    content = diff.encode()
    if len(content) > MAX_DIFF_BYTES:
        head = content[:MAX_DIFF_BYTES].decode(errors="ignore").rpartition("\n")[0]
        diff = f"{head}\n# truncated: the diff has {len(content)} bytes\n"
    untracked = _run_git_text("ls-files", "--others", "--exclude-standard", "--", ".", *ENV_FILES) or ""
    names = "".join(f"# untracked, content not recorded: {line}\n" for line in untracked.splitlines())
    return f"{names}{diff}{'' if diff.endswith(chr(10)) else chr(10)}"


def _read_commit() -> str | None:
    commit = _run_git_text("rev-parse", "HEAD")
    return commit.strip() if commit else None


def _find_changed_paths() -> tuple[str, ...]:
    status = _run_git_text("status", "--porcelain", "--", ".", *STAGE_OUTPUTS) or ""
    return tuple(line[3:] for line in status.splitlines())


def _run_git_text(*arguments: str) -> str | None:
    """Return the output of a git command; None if it fails (no git, no repository, no commit)."""
    output = run_git(*arguments)
    return None if output is None else output.decode("utf-8", errors="replace")
