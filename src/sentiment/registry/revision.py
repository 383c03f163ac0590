"""The selected model of a commit, as its `dvc.lock` and its metrics record it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import compute_md5
from sentiment.model.model_config import WEIGHTS_FILE
from sentiment.paths import Candidate
from sentiment.registry.git_tags import ARTIFACT_MD5, RegistryTag
from sentiment.repository import run_git
from sentiment.stage_inputs import parse_lock


@dataclass(frozen=True)
class CommittedModel:
    """The selected model of a commit.

    Attributes:
        commit: hash of the commit.
        candidate: which candidate evaluate selected.
        artifact_md5: MD5 of the folder `models/selected`, as in `dvc.lock`.
        model_md5: MD5 of the weights.
        params: parameters in `dvc.lock` by stage, each with values by section.
        metrics: scalar metrics of the model by name, such as `test.auc`.
        violated_limits: limits of the behavioural tests that the model violates.
    """

    commit: str
    candidate: Candidate
    artifact_md5: str
    model_md5: str
    params: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    violated_limits: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The stage that trained the model."""
        return paths.CANDIDATES[self.candidate]


def read_committed_model(commit: str) -> CommittedModel:
    """Read what a commit records about its selected model; no file outside git is needed.

    Args:
        commit: hash of the commit.

    Raises:
        UserError: `dvc.lock` or the metrics of evaluate are missing in the commit, or they disagree.
    """
    stages = parse_lock(_read(commit, paths.LOCK.as_posix()).decode(errors="replace"))
    metrics_path = paths.metrics("evaluate").as_posix()
    content = _read(commit, metrics_path)
    try:
        hashes = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs") or []}
        artifact_md5, locked_metrics = hashes[paths.SELECTED.as_posix()], hashes[metrics_path]
        params = {
            name: dict((stage.get("params") or {}).get(paths.PARAMS.name) or {})
            for name, stage in stages.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{commit}: {paths.LOCK} of this commit has no hash of {paths.SELECTED} or {metrics_path}; "
            "run `dvc repro` and commit its results"
        ) from None
    if compute_md5(content) != locked_metrics:
        raise UserError(
            f"{commit}: {metrics_path} is not the file that {paths.LOCK} records; commit the results of one "
            "`dvc repro` together"
        )
    try:
        metrics = json.loads(content)
        candidate: Candidate = metrics["selected"]
        model_md5 = hashes[(paths.model(candidate) / WEIGHTS_FILE).as_posix()]
        scalar_metrics = {
            f"{split}.{name}": float(value)
            for split, values in metrics["models"][candidate].items()
            if isinstance(values, dict)
            for name, value in values.items()
            if isinstance(value, int | float)
        }
        violated_limits = tuple(map(str, metrics["violated_limits"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{commit}: cannot read {metrics_path} ({type(error).__name__}: {error}): an earlier version of "
            "the code wrote it; run `dvc repro`, commit its results and register that commit"
        ) from None
    return CommittedModel(commit, candidate, artifact_md5, model_md5, params, scalar_metrics, violated_limits)


def read_registered_model(tag: RegistryTag) -> CommittedModel:
    """Read the model of a tag's commit, and compare it with the hash in the tag's message.

    Raises:
        UserError: the tag was moved to a commit with another model, or as `read_committed_model`.
    """
    model = read_committed_model(tag.commit)
    recorded = tag.details.get(ARTIFACT_MD5, model.artifact_md5)
    if recorded != model.artifact_md5:
        raise UserError(
            f"{tag.name}: its message records the model {recorded}, but its commit {tag.commit} has "
            f"{model.artifact_md5}: the tag was moved, or its message was edited"
        )
    return model


def _read(commit: str, path: str) -> bytes:
    content = run_git("show", f"{commit}:./{path}")
    if content is None:
        raise UserError(f"{commit}: this commit has no {path}; run `dvc repro` and commit its results")
    return content


def read_outputs(files: Iterable[Path]) -> dict[Path, str]:
    """Return the MD5s that `dvc.lock` of the working tree records for outputs.

    Raises:
        UserError: it is missing or lacks one of them.
    """
    content = paths.LOCK.read_bytes() if paths.LOCK.is_file() else None
    return _select_outputs(content, files, "the working tree")


def read_committed_outputs(commit: str, files: Iterable[Path]) -> dict[Path, str]:
    """Return the MD5s that `dvc.lock` of a commit records for outputs.

    Raises:
        UserError: it is missing or lacks one of them.
    """
    return _select_outputs(run_git("show", f"{commit}:./{paths.LOCK}"), files, f"commit {commit}")


def _select_outputs(lock: bytes | None, files: Iterable[Path], where: str) -> dict[Path, str]:
    outputs = list_outputs((lock or b"").decode(errors="replace"))
    wanted = list(files)
    if missing := [path for path in wanted if path.as_posix() not in outputs]:
        raise UserError(
            f"{paths.LOCK} of {where} has no {missing[0]}: run `dvc repro` and commit its results"
        )
    return {path: outputs[path.as_posix()] for path in wanted}


def list_outputs(lock: str) -> dict[str, str]:
    """Return the MD5 of each output by path, from the content of `dvc.lock`."""
    stages = parse_lock(lock).values()
    return {out["path"]: str(out.get("md5")) for stage in stages for out in stage.get("outs") or ()}


def is_uncommitted(path: Path) -> bool:
    """Return whether a file of the working tree differs from that of HEAD."""
    return bool(run_git("diff", "--name-only", "HEAD", "--", path.as_posix()))
