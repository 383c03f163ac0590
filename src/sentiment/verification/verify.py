"""`sentiment verify`: all checks of the working tree, a commit, a run or a model folder."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sentiment import paths
from sentiment.errors import UserError
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig, Origin
from sentiment.paths import Candidate
from sentiment.repository import get_commit
from sentiment.stage_inputs import KINDS, CommitTree, Kind, Tree, WorkingTree
from sentiment.verification.checks import Check, Verification
from sentiment.verification.git import (
    check_tag,
    check_working_tree,
    describe_shallow_clone,
    find_commits_with,
    require_commit,
    require_revision,
)
from sentiment.verification.lock import Project, check_inputs, check_installed_packages, check_lock
from sentiment.verification.outputs import (
    OutputTree,
    check_model,
    check_outputs,
    check_removed,
    read_config,
    read_selection,
)

Config = dict[str, Any] | None

RUN_ID = re.compile(r"[0-9a-f]{32}")
LOCK_KINDS: tuple[Kind, ...] = ("code", "params", "environment")


@dataclass(frozen=True)
class Subject:
    """What is verified.

    Attributes:
        name: description for the user.
        project: files and lock that it is compared with.
        candidate: model that it is; None for the selected one.
        folder: folder of the model; None for the one that the pipeline writes.
        run_id: the run to consider; None for any run that trained the model.
    """

    name: str
    project: Project
    candidate: Candidate | None = None
    folder: Path | None = None
    run_id: str | None = None


def verify_lock(revision: str = "HEAD") -> Verification:
    """Compare `dvc.lock` with the code, parameters and package versions of the same commit.

    Neither outputs nor DVC's cache are read.

    Raises:
        UserError: the revision does not exist, or git cannot read the repository.
    """
    require_commit()
    if get_commit(revision) is None and Path(revision).is_dir():
        raise UserError(
            f"{revision}: --lock compares files of a git revision, and this is a folder; "
            f"`sentiment verify {revision}` verifies the model in it"
        )
    commit = require_revision(revision)
    project = Project(CommitTree(commit), commit)
    checks = [check_lock(project), *(check_inputs(project, kind) for kind in LOCK_KINDS)]
    return Verification(f"dvc.lock of {revision}", tuple(checks))


def verify(name: str | None = None) -> Verification:
    """Verify the working tree, a commit, a run or a model folder.

    Args:
        name: revision, id of an MLflow run, or model folder; None for the working tree.

    Raises:
        UserError: there is no such revision, run or folder, the folder has no valid model, the tracking store
            cannot be reached, or git cannot read the repository.
    """
    on_disk = Project(WorkingTree(), require_commit())
    subject = _resolve(name, on_disk)
    if isinstance(subject, Check):  # no lock to compare with
        return Verification(name or "", (subject,))
    return Verification(subject.name, tuple(_run_checks(subject, name)))


def _resolve(name: str | None, on_disk: Project) -> Subject | Check:
    if name is None:
        return Subject("working tree", on_disk)
    commit = get_commit(name)
    if Path(name).is_dir() and (commit is None or Path(name).is_absolute()):
        return _resolve_folder(Path(name), on_disk)
    if commit is None and RUN_ID.fullmatch(name):
        return _resolve_run(name, on_disk)
    commit = _require_revision(name)
    return Subject(name, on_disk if commit == on_disk.commit else Project(CommitTree(commit), commit))


def _require_revision(name: str) -> str:
    commit = get_commit(name)
    if commit is None:
        raise UserError(
            f"{name}: neither a git revision, nor a DVC experiment, nor a model folder, nor the id of a run"
            f"{describe_shallow_clone()}"
        )
    return commit


def _run_checks(subject: Subject, name: str | None) -> list[Check]:
    project = subject.project
    checks = [check_lock(project), *(check_inputs(project, kind) for kind in KINDS)]
    if project.is_on_disk and project.commit:
        checks += [check_working_tree(project.commit), check_installed_packages(project)]
    tag = check_tag(name) if name else None
    outputs: Tree = project.tree if project.is_on_disk else OutputTree(project)
    candidate = subject.candidate or read_selection(outputs)
    folder = subject.folder or (paths.model(subject.candidate) if subject.candidate else paths.SELECTED)
    checks += [*([tag] if tag else []), check_outputs(project)]
    if candidate is None:
        message = f"{paths.metrics('evaluate')} is missing or invalid, so the selected model is not known"
        return [*checks, Check("model", "not known", message)]
    checks.append(check_model(outputs, candidate, folder, is_external=subject.folder is not None))
    checks.append(check_removed(outputs, project.tree))
    return [*checks, _check_run(project, candidate, subject.run_id)]


def _check_run(project: Project, candidate: Candidate, run_id: str | None) -> Check:
    """Check the run of a candidate as `dvc.lock` records it, even if its files are missing or changed."""
    from sentiment.tracking.mlflow_store import has_store, open_store  # takes seconds
    from sentiment.verification.model_run import check_run

    stage, folder = paths.CANDIDATES[candidate], paths.model(candidate)
    weights = project.list_outputs(stage).get((folder / WEIGHTS_FILE).as_posix())
    config = OutputTree(project).read((folder / CONFIG_FILE).as_posix())
    if weights is None or config is None:
        return Check("run", "not known", f"the configuration in {folder} that dvc.lock records is not here")
    if not has_store():
        return Check(
            "run",
            "not known",
            "there is no MLflow store here, so the run that trained the model is not known",
        )
    try:
        origin = ModelConfig.model_validate_json(config).origin
    except ValidationError:
        return Check(
            "run", "not known", f"{folder / CONFIG_FILE} has the format of another version of the code"
        )
    return check_run(project, open_store(), stage, weights, origin, run_id)


def _resolve_folder(folder: Path, on_disk: Project) -> Subject | Check:
    """Find the lock that records the weights in a folder: that of the working tree, or of a commit."""
    from sentiment.files import compute_file_md5
    from sentiment.verification.model_folder import validate_model_folder

    known = {paths.model(candidate).resolve(): candidate for candidate in paths.CANDIDATES}
    if folder.resolve() == paths.SELECTED.resolve():
        return Subject(str(folder), on_disk)
    if folder.resolve() in known:
        return Subject(str(folder), on_disk, known[folder.resolve()])
    is_trial = folder.resolve().is_relative_to(paths.STUDIES.resolve())
    validate_model_folder(folder, is_trial=is_trial)
    config = read_config(WorkingTree(), folder)
    weights = compute_file_md5(folder / WEIGHTS_FILE)
    found = _find_lock(weights, on_disk, lambda _, recorded: recorded == config)
    if found is None:
        return _report_unlocked("model", "with these weights")
    project, candidate = found
    return Subject(str(folder), project, candidate, folder)


def _resolve_run(run_id: str, on_disk: Project) -> Subject | Check:
    """Find the lock that records the model that a run trained."""
    from sentiment.tracking.mlflow_store import has_store, open_store
    from sentiment.tracking.origin_tags import MODEL_TAG, build_origin_tags
    from sentiment.tracking.search import find_run

    run = find_run(open_store(), run_id) if has_store() else None
    if run is None:
        raise UserError(
            f"{run_id}: neither a git revision, nor a model folder, nor a run in the MLflow store"
        )
    if MODEL_TAG not in run.tags:
        kind = "is a trial that did not win its search" if "tune.trial" in run.tags else "trained no model"
        return Check("run", "not known", f"it {kind}, so no dvc.lock records its model")

    def is_of_run(stage: str, config: Config) -> bool:
        origin = Origin.model_validate((config or {}).get("origin") or {"params": "", "data": "", "code": ""})
        return stage == run.tags.get("stage") and build_origin_tags(origin).items() <= run.tags.items()

    found = _find_lock(run.tags[MODEL_TAG], on_disk, is_of_run)
    if found is None:
        return _report_unlocked("run", "with the weights that it trained")
    project, candidate = found
    return Subject(f"run {run_id}", project, candidate, run_id=run_id)


def _find_lock(
    weights: str, on_disk: Project, matches: Callable[[str, Config], bool]
) -> tuple[Project, Candidate] | None:
    """Return the project whose `dvc.lock` records a model, and which of its models it is.

    Two models may have equal weights: a trial with the values in params.yaml trains the baseline again, and a
    parameter may have no effect. If no configuration matches, it is the first model with the weights.

    Args:
        weights: MD5 of the weights.
        on_disk: project whose lock is preferred to those of commits.
        matches: whether a model is the one, from its stage and its configuration.
    """
    commits = (Project(CommitTree(commit), commit) for commit in find_commits_with(weights))
    first = None
    for project in (on_disk, *commits):
        for candidate, stage in paths.CANDIDATES.items():
            model = paths.model(candidate)
            if project.list_outputs(stage).get((model / WEIGHTS_FILE).as_posix()) != weights:
                continue
            first = first or (project, candidate)
            if matches(stage, read_config(OutputTree(project), model)):
                return project, candidate
    return first


def _report_unlocked(name: str, which: str) -> Check:
    return Check(
        name,
        "differs",
        f"the dvc.lock of no commit, branch, tag or experiment records a model {which}"
        f"{describe_shallow_clone()}",
    )
