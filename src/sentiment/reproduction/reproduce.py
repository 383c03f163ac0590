"""`sentiment reproduce`: makes the outputs of a commit again, and compares them with its `dvc.lock`."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from sentiment import paths
from sentiment.comparison import fetch_output
from sentiment.environment import find_differing_packages, list_declared_packages
from sentiment.errors import UserError
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE
from sentiment.model.model_files import load_model
from sentiment.model.predictor import Predictor
from sentiment.paths import Candidate
from sentiment.repository import DVC_SUFFIX, run_git
from sentiment.reproduction.differences import Difference, OutputsOnDisk, find_difference
from sentiment.reproduction.machine import describe_machine, list_weights
from sentiment.reproduction.result import Reproduction, StageResult
from sentiment.reproduction.scores import ScoreComparison, compare_models
from sentiment.reproduction.worktree import open_worktree, run_stage
from sentiment.stage_inputs import KINDS, CommitTree, parse_lock, read_yaml
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.verification.git import require_commit, require_revision
from sentiment.verification.lock import Project, check_inputs, check_lock
from sentiment.verification.outputs import OutputTree

logger = logging.getLogger(__name__)

DATABASE = Path("mlruns/mlflow.db")

INPUTS = ("params.yaml", "dvc.yaml", "environment.yaml", "src", "stages", "data")
"""Files of the repository that determine the outputs."""


def reproduce(revision: str = "HEAD", keep: Path | None = None) -> Reproduction:
    """Make the outputs of a commit again in a clean worktree, and compare them with its `dvc.lock`.

    Everything is computed: the worktree has its own DVC cache, MLflow store and studies. Only downloaded
    files and files in `data/incoming` come from this machine.

    Args:
        revision: git revision or DVC experiment.
        keep: folder to which the new outputs are copied; it must not exist.

    Raises:
        UserError: there is no such revision, it has no complete `dvc.lock`, the installed packages are not
            those in its `environment.yaml`, or a stage fails.
    """
    if keep is not None and keep.exists():
        raise UserError(f"--keep: {keep} exists; name a folder that does not exist yet")
    require_commit()
    commit = require_revision(revision)
    _warn_about_uncommitted_changes(revision)
    project = Project(CommitTree(commit), commit)
    stages = order_stages(project, revision)
    _require_packages(project, revision)
    lock = tuple(
        f"{check.name}: {check.message}"
        for check in (check_lock(project), *(check_inputs(project, kind) for kind in KINDS))
        if check.status == "differs"
    )
    with open_worktree(commit) as root:
        _fetch_incoming(project, root)
        results = []
        for stage in stages:
            run_stage(root, stage)
            results.append(_compare_stage(project, root, stage))
            logger.info(str(results[-1]))
        result = _conclude(project, Reproduction(revision, commit, "equal", tuple(results), lock), root)
        if keep is not None:
            _copy_outputs(project, root, keep)
    return result


def _warn_about_uncommitted_changes(revision: str) -> None:
    """Warn that changes of the working tree are not part of HEAD, which a user may have meant to try."""
    changed = run_git("status", "--porcelain", "--untracked-files=no", "--", *INPUTS) or b""
    if revision == "HEAD" and changed:
        names = ", ".join(line[3:] for line in changed.decode().splitlines())
        logger.warning(f"HEAD is made again, without the changes that are not committed: {names}")


def order_stages(project: Project, name: str) -> list[str]:
    """Return the stages of a project, each after those whose outputs it reads.

    Raises:
        UserError: `dvc.yaml` or `dvc.lock` is missing, or they do not have the same stages.
    """
    missing = [stage for stage in project.stages if stage not in project.lock]
    if not project.stages or missing:
        which = f"no entry of {', '.join(missing)}" if missing else "no stages"
        raise UserError(
            f"{name}: {paths.LOCK} of this commit has {which}, so there is nothing to compare with; run "
            "`dvc repro` and commit its results, or name a later commit"
        )
    writers = {path: stage for stage in project.stages for path in project.list_outputs(stage)}
    graph = {
        name: [writers[dep] for dep in stage.get("deps") or () if dep in writers]
        for name, stage in project.stages.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        raise UserError(
            f"{name}: the stages in {paths.PIPELINE} of this commit depend on each other"
        ) from None


def _require_packages(project: Project, revision: str) -> None:
    """Raise UserError if installed packages differ from those in the commit's `environment.yaml`."""
    locked = read_yaml(project.tree, paths.ENVIRONMENT.name)
    if not locked:
        logger.warning(
            "%s has no %s: whether the installed packages are those of the commit is not known",
            revision,
            paths.ENVIRONMENT,
        )
        return
    packages = sorted({name for stage in project.stages.values() for name in list_declared_packages(stage)})
    if differences := find_differing_packages(packages, {name: str(locked[name]) for name in locked}):
        raise UserError(
            "\n  ".join(
                [
                    f"installed packages differ from {paths.ENVIRONMENT} of {revision}:",
                    *differences,
                    "install the packages in its requirements.lock in another environment, and run it there",
                ]
            )
        )


def _fetch_incoming(project: Project, root: Path) -> None:
    """Copy the files in `data/incoming` that DVC tracks from DVC's cache or remote to a worktree."""
    listed = run_git("ls-tree", "-r", "-z", "--name-only", str(project.commit), "--", str(paths.INCOMING))
    for name in (listed or b"").decode().split("\0"):
        if name.endswith(DVC_SUFFIX):
            for out in read_yaml(project.tree, name).get("outs") or ():
                path = Path(name).parent / str(out["path"])
                fetch_output(str(project.commit), path, root / path)


def read_remade_outputs(root: Path) -> dict[str, dict[str, str]]:
    """Return the MD5 of each output by path, by stage, that the `dvc.lock` in a worktree records."""
    lock = parse_lock((root / paths.LOCK).read_text(encoding="utf-8"))
    return {
        stage: {out["path"]: str(out.get("md5")) for out in entry.get("outs") or ()}
        for stage, entry in lock.items()
    }


def _compare_stage(project: Project, root: Path, stage: str) -> StageResult:
    """Compare what a stage wrote in a worktree with `dvc.lock`."""
    locked, remade = project.list_outputs(stage), read_remade_outputs(root).get(stage, {})
    committed, new = OutputTree(project), OutputsOnDisk(root)
    differences = (
        find_difference(path, committed, new) or Difference(path, "has another MD5 in dvc.lock")
        for path in dict.fromkeys([*locked, *remade])
        if locked.get(path) != remade.get(path)
    )
    return StageResult(stage, len(locked), tuple(differences))


def _conclude(project: Project, result: Reproduction, root: Path) -> Reproduction:
    """Return the result with its verdict; other hardware must explain all differences."""
    if result.first_difference is None:
        return result
    first, _ = result.first_difference
    reasons = []
    machine, scores = None, {}
    weights = list_weights({stage: project.list_outputs(stage) for stage in project.stages})
    remade = list_weights(read_remade_outputs(root))
    if first in {*weights, "evaluate"}:
        machine = describe_machine(first, weights, remade, root / DATABASE)
        if machine is None:
            reasons.append(
                f"on which machine {first} ran is not known: its run is not in this MLflow store "
                "(MLFLOW_TRACKING_URI)"
            )
        elif not machine:
            reasons.append(f"{first} ran on a machine like this one, so that the hardware is not the reason")
        try:
            scores = _compare_scores(
                project,
                root,
                [name for name, stage in paths.CANDIDATES.items() if weights.get(stage) != remade.get(stage)],
            )
        except UserError as error:
            reasons.append(f"the scores cannot be compared: {error}")
        reasons += [
            f"the scores of models/{name} differ by more than other hardware explains"
            for name, comparison in scores.items()
            if not comparison.is_within_tolerance
        ]
    else:
        reasons.append(f"{first} writes the same bytes on all hardware")
    if result.lock:
        reasons.append("dvc.lock is not that of its commit")
    return Reproduction(
        result.revision,
        result.commit,
        "different" if reasons else "other hardware",
        result.stages,
        result.lock,
        machine,
        scores,
        tuple(reasons),
    )


def _compare_scores(
    project: Project, root: Path, candidates: Sequence[Candidate]
) -> dict[str, ScoreComparison]:
    """Compare the scores of the selected models, and of candidates, by the model's name below `models`."""
    commit, evaluate = str(project.commit), _read_locked_params(project, "evaluate")
    reviews, remade_tokenizer = root / paths.reviews("test"), root / paths.TOKENIZER
    with tempfile.TemporaryDirectory() as temporary:
        selected = fetch_output(commit, paths.SELECTED, Path(temporary) / paths.SELECTED.name)
        models = {paths.SELECTED.name: (Predictor.load(selected), Predictor.load(root / paths.SELECTED))}
        for candidate in candidates:
            source, folder = paths.model(candidate), Path(temporary) / candidate
            folder.mkdir()
            for path in (source / WEIGHTS_FILE, source / CONFIG_FILE, paths.TOKENIZER):
                fetch_output(commit, path, folder / path.name)
            remade = Predictor(load_model(root / source), load_tokenizer(remade_tokenizer))
            models[candidate] = Predictor.load(folder), remade
    return {name: compare_models(*pair, reviews, evaluate) for name, pair in models.items()}


def _read_locked_params(project: Project, section: str) -> Mapping[str, Any]:
    params = (project.lock.get("evaluate", {}).get("params") or {}).get(paths.PARAMS.name) or {}
    values = params.get(section)
    if not isinstance(values, Mapping) or not {"margin", "confidence_level"} <= values.keys():
        raise UserError(f"{paths.PARAMS} of this commit has no margin for comparisons of models")
    return values


def _copy_outputs(project: Project, root: Path, target: Path) -> None:
    for stage in project.stages:
        for path in map(Path, project.list_outputs(stage)):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            if (root / path).is_dir():
                shutil.copytree(root / path, target / path)
            elif (root / path).is_file():
                shutil.copy2(root / path, target / path)
