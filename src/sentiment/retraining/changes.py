"""What changed since the champion: data, parameters, code and packages, as `dvc.lock` records them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import UserError
from sentiment.files import compute_md5
from sentiment.registry.revision import read_committed_outputs, read_outputs
from sentiment.repository import run_git
from sentiment.stage_inputs import Kind, StageInputs, parse_lock, read_locked_inputs

LEARNED_DATA = tuple(paths.reviews(split) for split in paths.LEARNED_SPLITS)
"""Files with the reviews that a model learns from."""


@dataclass(frozen=True)
class Changes:
    """Differences between the `dvc.lock` of a commit and that of the working tree, a line each.

    Attributes:
        data: sizes of the splits, and the sources' files.
        params: parameters, with both values.
        code: files that stages depend on.
        packages: locked packages, with both versions.
    """

    data: list[str]
    params: list[str]
    code: list[str]
    packages: list[str]

    def to_dict(self) -> dict[str, list[str]]:
        """Return the lines by kind."""
        return asdict(self)


def find_changes(commit: str) -> Changes:
    """Return what changed between a commit and the working tree.

    Raises:
        UserError: the commit or the working tree has no `dvc.lock`.
    """
    former, current = _read_inputs(commit), _read_inputs(None)
    return Changes(
        data=_compare_download_metrics(commit),
        params=_compare_values(former, current, "params"),
        code=_list_changed_files(commit, former, current),
        packages=_compare_values(former, current, "environment"),
    )


def compute_inputs_digest(commit: str | None = None) -> str:
    """Compute the MD5 of all inputs of the models in the `dvc.lock` of a commit, or of the working tree.

    Two models with the same digest differ by the machines that trained them only.

    Raises:
        UserError: there is no `dvc.lock`.
    """
    inputs = _read_inputs(commit)
    digests = {stage: dict(values.compute_digests()) for stage, values in inputs.items()}
    digests.get("evaluate", {}).pop("data", None)  # which has the models themselves
    return compute_md5(json.dumps(digests, sort_keys=True).encode())


def have_review_files_changed(champion_commit: str) -> bool:
    """Return whether the files with reviews that models learn from are others than those of a commit.

    The reviews may be the same in another order or split, or written by another version of the library.

    Raises:
        UserError: `dvc.lock` of the working tree or of the commit lacks the reviews.
    """
    committed, current = read_committed_outputs(champion_commit, LEARNED_DATA), read_outputs(LEARNED_DATA)
    return committed != current


def compute_test_digest() -> str:
    """Compute the MD5 of the texts and labels of the test split, in whatever order and from whatever source.

    The MD5 of the file would also change with the version of the library that writes it, and looks at the
    split would then be counted from 0.

    Raises:
        UserError: the file is missing or corrupt.
    """
    reviews = read_reviews(paths.reviews("test"))
    rows = sorted(zip(reviews["text"].to_pylist(), reviews["label"].to_pylist(), strict=True))
    return compute_md5(json.dumps(rows).encode())


def read_selected_md5() -> str:
    """Return the MD5 of the folder of the selected model, as `dvc.lock` of the working tree records it.

    Raises:
        UserError: `dvc.lock` has no selected model.
    """
    return read_outputs([paths.SELECTED])[paths.SELECTED]


def _read_inputs(commit: str | None) -> dict[str, StageInputs]:
    content = paths.LOCK.read_bytes() if commit is None and paths.LOCK.is_file() else None
    if commit is not None:
        content = run_git("show", f"{commit}:./{paths.LOCK}")
    if content is None:
        raise UserError(f"{commit or 'the working tree'} has no {paths.LOCK}; run `dvc repro`")
    stages = parse_lock(content.decode(errors="replace"))
    return {name: read_locked_inputs(entry) for name, entry in stages.items()}


def _compare_values(
    former: Mapping[str, StageInputs], current: Mapping[str, StageInputs], kind: Kind
) -> list[str]:
    before, after = _merge(former, kind), _merge(current, kind)
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [f"{name}: {_format(before, name)} → {_format(after, name)}" for name in names]


def _merge(inputs: Mapping[str, StageInputs], kind: Kind) -> dict[str, Any]:
    return {name: value for stage in inputs.values() for name, value in stage.values[kind].items()}


def _format(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "none"


def _list_changed_files(
    commit: str, former: Mapping[str, StageInputs], current: Mapping[str, StageInputs]
) -> list[str]:
    """Return the files of the changed dependencies that differ; the dependency itself if git finds none."""
    before, after = _merge(former, "code"), _merge(current, "code")
    changed = []
    for path in sorted(path for path in {*before, *after} if before.get(path) != after.get(path)):
        listed = run_git("diff", "--name-only", "--relative", commit, "--", path) or b""
        changed += listed.decode(errors="replace").splitlines() or [path]
    return changed


def _compare_download_metrics(commit: str) -> list[str]:
    path = paths.metrics("download")
    former, current = _parse(run_git("show", f"{commit}:./{path}")), _parse(path.read_bytes())
    lines = []
    for split in ("train", "validation", "holdout", "test", "recent", "unlabelled"):
        before, after = (metrics.get(split, {}).get("reviews", 0) for metrics in (former, current))
        if before != after:
            lines.append(f"{split}: {before:,} → {after:,} reviews")
    files, others = current.get("files", {}), former.get("files", {})
    lines += [f"{name}: new" for name in files if name not in others]
    lines += [f"{name}: removed" for name in others if name not in files]
    lines += [f"{name}: changed" for name in files if name in others and files[name] != others[name]]
    return lines


def _parse(content: bytes | None) -> dict[str, Any]:
    try:
        return dict(json.loads(content or b"{}"))
    except ValueError:
        return {}
