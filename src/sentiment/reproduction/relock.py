"""`sentiment relock`: records a refactoring in `dvc.lock` without a retraining, if results are equal."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sentiment import paths
from sentiment.errors import UserError
from sentiment.repository import list_files, run_git
from sentiment.reproduction.differences import Difference, OutputsOnDisk, find_difference
from sentiment.reproduction.machine import list_weights
from sentiment.reproduction.reproduce import order_stages, read_remade_outputs
from sentiment.reproduction.small_params import shrink
from sentiment.reproduction.worktree import open_worktree, run_stage
from sentiment.stage_inputs import (
    CODE_FOLDERS,
    CommitTree,
    Kind,
    WorkingTree,
    collect_inputs,
    read_locked_inputs,
)
from sentiment.tracking import open_store
from sentiment.tracking.mlflow_store import has_store
from sentiment.tracking.origin_tags import MODEL_TAG
from sentiment.tracking.search import find_runs
from sentiment.verification.git import require_commit
from sentiment.verification.lock import (
    Project,
    check_inputs,
    list_declared_data,
    list_declared_outputs,
)
from sentiment.verification.model_run import build_equal_code_tag, has_code

logger = logging.getLogger(__name__)

MAX_COMMITS = 50
"""Maximum number of earlier commits that are searched for the code that `dvc.lock` records."""

UNCHANGED_KINDS: tuple[Kind, ...] = ("params", "environment", "data")
"""Inputs that a refactoring does not change."""

CodeHashes = dict[str, dict[str, str | None]]
"""MD5 of each dependency that is code, by stage and path."""


@dataclass(frozen=True)
class Relock:
    """Result of `relock`.

    Attributes:
        changed: stages whose code differed from `dvc.lock`.
        base: commit with the code that `dvc.lock` recorded; None if no code changed.
        difference: first stage and output that differ; None if all are equal.
        runs: ids of MLflow runs whose models are verified with the new code from now on.
    """

    changed: tuple[str, ...]
    base: str | None = None
    difference: tuple[str, Difference] | None = None
    runs: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.base is None:
            return "dvc.lock has the present code of all stages: nothing to record"
        compared = f"with the code of commit {self.base[:7]} and with that of the working tree"
        if self.difference:
            stage, difference = self.difference
            return (
                f"{stage}: on a small cut, {compared}, it writes other outputs: {difference}\n"
                "dvc.lock is unchanged; `dvc repro` computes the results of the new code"
            )
        return (
            f"on a small cut, {compared}, all stages write the same outputs\n"
            f"dvc.lock: recorded the new code of {', '.join(self.changed)}; commit it with the code"
        )


def relock() -> Relock:
    """Compare the results of the working tree's code with those of the locked code; record it if equal.

    Both run the pipeline on a small cut of the reviews, in temporary worktrees. Then the hashes of the code
    in `dvc.lock` are replaced. Outputs, parameters, package versions and data stay as recorded.

    Raises:
        UserError: parameters, packages or data differ from `dvc.lock`, no commit has the code that it
            records, the code changed meanwhile, or a stage failed.
    """
    head = require_commit()
    project = Project(WorkingTree(), head)
    stages = order_stages(project, "the working tree")
    _require_same_inputs(project)
    code = _hash_code(project)
    locked = {name: dict(read_locked_inputs(project.lock[name]).values["code"]) for name in stages}
    changed = tuple(name for name in stages if code[name] != locked[name])
    if not changed:
        return Relock(())
    base = _find_base(project, locked)
    with open_worktree(base) as before, open_worktree(head) as after:
        _copy_working_tree(after)
        for root in (before, after):
            _copy_data(project, root)
            shrink(root)
        for stage in stages:
            if difference := _compare(before, after, stage):
                return Relock(changed, base, (stage, difference))
    if _hash_code(Project(WorkingTree(), head)) != code:
        raise UserError("source files changed while relock compared results; run it again")
    _write_code_hashes(changed)
    return Relock(changed, base, runs=tuple(_tag_runs(project, changed)))


def _require_same_inputs(project: Project) -> None:
    """Raise UserError unless stages, parameters, packages and data are those in `dvc.lock`."""
    problems = []
    for name, stage in project.stages.items():
        entry = project.lock[name]
        data, outputs = list_declared_data(stage), list_declared_outputs(stage)
        if (
            entry.get("cmd") != stage.get("cmd")
            or data != {*read_locked_inputs(entry).values["data"]}
            or outputs != {*project.list_outputs(name)}
        ):
            problems.append(f"{name}: {paths.PIPELINE} declares another command, other data or other outputs")
    checks = [check_inputs(project, kind) for kind in UNCHANGED_KINDS]
    problems += [check.message for check in checks if check.status == "differs"]
    if problems:
        raise UserError(
            "\n  ".join(
                [
                    "relock records changes of code only; `dvc repro` computes the results of these changes:",
                    *problems,
                ]
            )
        )


def _hash_code(project: Project) -> CodeHashes:
    """Return the MD5 of each dependency that is code.

    Raises:
        UserError: a dependency does not exist.
    """
    hashes = {
        name: dict(collect_inputs(stage, project.tree, ("code",)).values["code"])
        for name, stage in project.stages.items()
    }
    for name, dependencies in hashes.items():
        if missing := [path for path, md5 in dependencies.items() if md5 is None]:
            raise UserError(f"{name}: {', '.join(missing)}, which {paths.PIPELINE} names, does not exist")
    return hashes


def _find_base(project: Project, locked: Mapping[str, Mapping[str, str | None]]) -> str:
    """Return the newest commit whose code is the one that `dvc.lock` records."""
    log = run_git(
        "log", "--format=%H", f"-{MAX_COMMITS}", "--", *CODE_FOLDERS, str(paths.PIPELINE), str(paths.LOCK)
    )
    for commit in dict.fromkeys([str(project.commit), *(log or b"").decode().split()]):
        earlier = Project(CommitTree(commit), commit)
        if all(
            dict(collect_inputs(earlier.stages.get(name, {}), earlier.tree, ("code",)).values["code"]) == code
            for name, code in locked.items()
        ):
            return commit
    raise UserError(
        f"none of the last {MAX_COMMITS} commits has the code that dvc.lock records, so that its results "
        "cannot be compared; `dvc repro` computes the results of the present code"
    )


def _copy_working_tree(root: Path) -> None:
    """Replace the files in a worktree by those of the working tree that git tracks or would track.

    Files that the working tree lacks are removed.
    """
    present = {*list_files(), *list_files("--others", "--exclude-standard")}
    for name in present.union(list_files(root=root)):  # a staged deletion is listed in the worktree only
        target = root / name
        if Path(name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, target)
        else:
            target.unlink(missing_ok=True)


def _copy_data(project: Project, root: Path) -> None:
    """Copy the data that no stage writes, with files that DVC tracks; both pipelines read the same."""
    written = {path for stage in project.stages for path in project.list_outputs(stage)}
    declared = {str(dep) for stage in project.stages.values() for dep in stage.get("deps") or ()}
    for path in map(Path, declared - written):
        if path.as_posix().startswith(CODE_FOLDERS):
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(root / path, ignore_errors=True)
            shutil.copytree(path, root / path)
        elif path.is_file():
            shutil.copy2(path, root / path)


def _compare(before: Path, after: Path, stage: str) -> Difference | None:
    """Run a stage in two worktrees; return the first output that differs by more than the code's digest."""
    for root in (before, after):
        run_stage(root, stage)
    old, new = (read_remade_outputs(root)[stage] for root in (before, after))
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path):
            difference = find_difference(path, OutputsOnDisk(before), OutputsOnDisk(after))
            if difference and not difference.is_digest_only:
                return difference
    logger.info("%s: equal", stage)
    return None


def _write_code_hashes(stages: tuple[str, ...]) -> None:
    """Replace the hashes of the code of some stages in `dvc.lock`, as DVC writes them."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            for name in stages:
                stage = repo.stage.load_one(paths.PIPELINE.name, name)
                for dependency in stage.deps:
                    if dependency.def_path.startswith(CODE_FOLDERS):
                        dependency.save()
                stage.dump(update_pipeline=False)
    except DvcException as error:
        raise UserError(f"DVC cannot write {paths.LOCK}: {error}") from None


def _tag_runs(project: Project, stages: tuple[str, ...]) -> Iterator[str]:
    """Record in the runs of the locked models that the new code has equal results; yield their ids."""
    if not has_store():
        return
    weights = list_weights({stage: project.list_outputs(stage) for stage in project.stages})
    new_lock = Project(WorkingTree(), project.commit).lock
    for stage in [stage for stage in stages if weights.get(stage)]:
        old, new = (
            read_locked_inputs(lock[stage]).compute_digests()["code"] for lock in (project.lock, new_lock)
        )
        store = open_store()
        for run in find_runs(store, {MODEL_TAG: weights[stage], "stage": stage}):
            if has_code(run, old) and not run.is_deleted:
                store.client.set_tag(run.id, build_equal_code_tag(new), f"equal to {old}")
                yield run.id
