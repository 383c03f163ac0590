"""`dvc.lock` against the code, parameters and package versions of the same tree, without outputs."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sentiment import paths
from sentiment.environment import find_differing_packages, list_declared_packages
from sentiment.errors import UserError
from sentiment.repository import run_git
from sentiment.stage_inputs import (
    CODE_FOLDERS,
    CommitTree,
    Kind,
    StageInputs,
    Tree,
    WorkingTree,
    collect_inputs,
    find_older_inputs,
    read_locked_inputs,
    read_yaml,
)
from sentiment.verification.checks import Check, report_differences

DESCRIPTIONS: dict[Kind, str] = {
    "code": "source code is",
    "params": f"parameters in {paths.PARAMS} are",
    "environment": f"package versions in {paths.ENVIRONMENT} are",
    "data": f"files in {paths.INCOMING} and {paths.REMOVED} are",
}

MAX_COMMITS = 50
"""Maximum number of earlier commits in which the locked version of a folder is looked up."""


@dataclass(frozen=True)
class Project:
    """The files of the project that one `dvc.lock` belongs to.

    Attributes:
        tree: files on disk or of a commit.
        commit: commit of the tree, or that the working tree is based on; None without git.
    """

    tree: Tree
    commit: str | None

    @property
    def is_on_disk(self) -> bool:
        """Whether the files are those of the working tree."""
        return isinstance(self.tree, WorkingTree)

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages of `dvc.yaml`."""
        return _get_stages(self.tree, paths.PIPELINE.name)

    @cached_property
    def lock(self) -> dict[str, dict[str, Any]]:
        """The stages of `dvc.lock`."""
        return _get_stages(self.tree, paths.LOCK.name)

    @cached_property
    def committed_lock(self) -> dict[str, dict[str, Any]]:
        """The stages of the commit's `dvc.lock`; empty without git."""
        return _get_stages(CommitTree(self.commit), paths.LOCK.name) if self.commit else {}

    def list_outputs(self, stage: str) -> dict[str, str]:
        """Return the MD5 of each output that `dvc.lock` records for a stage, by path."""
        return {out["path"]: str(out.get("md5")) for out in self.lock.get(stage, {}).get("outs") or ()}


def _get_stages(tree: Tree, path: str) -> dict[str, dict[str, Any]]:
    stages = read_yaml(tree, path).get("stages") or {}
    if not isinstance(stages, Mapping) or not all(isinstance(stage, Mapping) for stage in stages.values()):
        raise UserError(f"{path}: expected a mapping of stages")
    return {name: dict(stage) for name, stage in stages.items()}


def check_lock(project: Project) -> Check:
    """Check that `dvc.lock` has all stages, that each read what others wrote, and that it was not edited."""
    count = len(project.stages)
    return report_differences(
        "lock",
        [*_find_incomplete_stages(project), *_find_broken_links(project), *_find_edits(project)],
        f"dvc.lock records all {count} stages, and each read what the stages before it wrote",
    )


def _find_incomplete_stages(project: Project) -> Iterator[str]:
    for name, stage in project.stages.items():
        entry = project.lock.get(name)
        if entry is None:
            yield f"{name}: not in dvc.lock"
        elif entry.get("cmd") != stage.get("cmd"):
            yield f"{name}: its command differs from the one in dvc.lock"
        else:
            read = {*read_locked_inputs(entry).values["data"]}
            yield from _describe_undeclared(name, "dependency", list_declared_data(stage), read)
            written = {*project.list_outputs(name)}
            yield from _describe_undeclared(name, "output", list_declared_outputs(stage), written)


def _describe_undeclared(stage: str, what: str, declared: set[str], locked: set[str]) -> Iterator[str]:
    for path in sorted(declared - locked):
        yield f"{stage}: dvc.lock lacks the {what} {path}, which {paths.PIPELINE} declares"
    for path in sorted(locked - declared):
        yield f"{stage}: {paths.PIPELINE} does not declare the {what} {path}, which dvc.lock has"


def list_declared_data(stage: Mapping[str, Any]) -> set[str]:
    """Return the dependencies of a stage of `dvc.yaml` that are not code."""
    return {str(dep) for dep in stage.get("deps") or () if not str(dep).startswith(CODE_FOLDERS)}


def list_declared_outputs(stage: Mapping[str, Any]) -> set[str]:
    """Return the outputs of a stage of `dvc.yaml`, with its metrics and plots."""
    declared = [out for key in ("outs", "metrics", "plots") for out in stage.get(key) or ()]
    # An output is a path, or a path with options.
    return {str(path) for out in declared for path in (out if isinstance(out, Mapping) else [out])}


def _find_broken_links(project: Project) -> Iterator[str]:
    """Find inputs of stages that differ from the output of the stage that wrote them."""
    for name in project.lock:
        for path in find_older_inputs(project.lock, name):
            yield (
                f"{name} read another {path} than dvc.lock records as written: a stage has to run again, "
                "or dvc.lock was edited manually"
            )


def _find_edits(project: Project) -> Iterator[str]:
    """Find values of an uncommitted `dvc.lock` where the committed one agrees with the files on disk."""
    if not project.is_on_disk or project.lock == project.committed_lock:
        return
    for name, entry in project.lock.items():
        before = project.committed_lock.get(name)
        if before is None:
            continue
        committed = {out["path"]: out.get("md5") for out in before.get("outs") or ()}
        for path, md5 in project.list_outputs(name).items():
            if committed.get(path) != md5 and project.tree.hash(path) == committed.get(path):
                yield (
                    f"{name}: dvc.lock was edited: {path} on disk is as in the committed dvc.lock, which has "
                    f"{str(committed[path])[:7]} and not {md5[:7]}"
                )
        actual = collect_inputs(project.stages.get(name, {}), project.tree, ("code", "params", "environment"))
        now, then = read_locked_inputs(entry), read_locked_inputs(before)
        for kind in ("code", "params", "environment"):
            for item in now.find_differences(then, kind):
                if now.values[kind].get(item) != actual.values[kind].get(item) == then.values[kind].get(item):
                    yield (f"{name}: dvc.lock was edited: {item} on disk is as in the committed dvc.lock")


def check_inputs(project: Project, kind: Kind) -> Check:
    """Check that the inputs of one kind are those that `dvc.lock` records, for all stages.

    Of data, only what no stage writes is checked; the rest are outputs.
    """
    differences = []
    unknown = []
    for name, stage in project.stages.items():
        if name not in project.lock:
            continue
        locked = read_locked_inputs(project.lock[name])
        current = collect_inputs(_without_outputs(project, stage), project.tree, (kind,))
        for item in locked.find_differences(current, kind):
            if kind == "data" and item not in current.values[kind]:
                continue
            if item == paths.INCOMING.as_posix() and current.values[kind][item] is None:
                unknown.append(f"{item} has folders that DVC tracks, whose files are not in git")
                continue
            differences.append(f"{name}: {_describe(project, kind, item, locked, current)}")
    if unknown and not differences:
        return Check(kind, "not known", unknown[0])
    return report_differences(kind, differences, f"the {DESCRIPTIONS[kind]} as in dvc.lock")


def _without_outputs(project: Project, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage of `dvc.yaml` without the dependencies that another stage writes."""
    outputs = {path for name in project.lock for path in project.list_outputs(name)}
    return {**stage, "deps": [dep for dep in stage.get("deps") or () if dep not in outputs]}


def _name(value: object) -> str:
    return "missing" if value is None else str(value)


def _describe(project: Project, kind: Kind, item: str, locked: StageInputs, current: StageInputs) -> str:
    old, new = locked.values[kind].get(item), current.values[kind].get(item)
    if kind in {"params", "environment"}:
        return f"{item} is {_name(new)}, in dvc.lock {_name(old)}"
    if new is None:
        return f"{item} is missing"
    if old is None:
        return f"{item} is not in dvc.lock"
    files = _find_changed_files(project, item, old) if kind == "code" else []
    return f"{item} differs from dvc.lock" + (f" ({', '.join(files)})" if files else "")


def _find_changed_files(project: Project, path: str, locked: str) -> list[str]:
    """Return the files of a dependency that changed since the newest commit that has the locked version.

    The list is empty if none of the last commits that changed the dependency has that version.
    """
    if project.commit is None:
        return []
    log = run_git("log", "--format=%H", f"-{MAX_COMMITS}", project.commit, "--", path) or b""
    for commit in log.decode().split():
        if CommitTree(commit).hash(path) == locked:
            revisions = [commit] if project.is_on_disk else [commit, project.commit]
            names = run_git("diff", "--name-only", "-z", *revisions, "--", path) or b""
            untracked = run_git("ls-files", "-z", "--others", "--exclude-standard", "--", path) or b""
            listing = names + (untracked if project.is_on_disk else b"")
            return [os.fsdecode(name) for name in listing.split(b"\0") if name]
    return []


def check_installed_packages(project: Project) -> Check:
    """Check that the installed packages are those in `environment.yaml` on disk."""
    packages = {name for stage in project.stages.values() for name in list_declared_packages(stage)}
    return report_differences(
        "installed packages",
        find_differing_packages(sorted(packages)),
        f"the {len(packages)} packages that results depend on have the versions in {paths.ENVIRONMENT}",
    )
