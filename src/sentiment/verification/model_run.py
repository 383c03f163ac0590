"""The MLflow run that trained a model, against the inputs that `dvc.lock` records for the model's stage."""

from collections.abc import Mapping, Sequence

from sentiment.model.model_config import Origin
from sentiment.settings import load_settings
from sentiment.stage_inputs import DIGEST_TAG, KINDS, Kind, read_locked_inputs
from sentiment.tracking import Store
from sentiment.tracking.origin_tags import MODEL_COMMIT_TAG, MODEL_TAG, UNKNOWN, build_origin_tags
from sentiment.tracking.provenance import COMMIT_TAG, DIRTY_TAG
from sentiment.tracking.search import FoundRun, find_runs
from sentiment.verification.checks import Check, Status
from sentiment.verification.lock import Project

NAME = "run"
CODE_DIGEST_TAG = f"{DIGEST_TAG}code"
RELOCKED = ", with code for which `sentiment relock` found equal results"
CONTENT: dict[Kind, str] = {
    "code": "code",
    "params": "parameters",
    "environment": "package versions",
    "data": "data",
}


def check_run(
    project: Project, store: Store, stage: str, weights: str, origin: Origin | None, run_id: str | None = None
) -> Check:
    """Check that a run trained a model from the inputs in `dvc.lock`, at whichever commit that was.

    Args:
        project: project with the lock.
        store: tracking store.
        stage: stage that wrote the model.
        weights: MD5 of the model's weights.
        origin: origin in the model's configuration.
        run_id: the only run to consider; None for all.
    """
    found = find_runs(store, {MODEL_TAG: weights, "stage": stage})
    runs = [run for run in found if run_id in {None, run.id}]
    if not runs:
        return Check(
            NAME,
            "not known",
            f"the MLflow store has no run of {stage} with these weights: DVC restored the model from its "
            "cache, or the run is in another store (MLFLOW_TRACKING_URI)",
        )
    same_origin = [run for run in runs if build_origin_tags(origin).items() <= run.tags.items()]
    if not same_origin:
        reason = "made the same weights from other parameters, data or code; the model's own run is not here"
        return _report("not known", runs, reason)
    active = [run for run in same_origin if not run.is_deleted]
    if not active:
        restore = f"`mlflow runs restore --run-id {same_origin[0].id}` restores it"
        return _report("not known", same_origin, f"trained it, but was deleted; {restore}")
    experiment = load_settings().mlflow_experiment_name
    own = [run for run in active if run.experiment == experiment]
    if not own:
        others = f"is in the MLflow experiment {active[0].experiment!r}, not in {experiment!r}"
        return _report("differs", active, others)
    trained = [run for run in own if run.tags.get(MODEL_COMMIT_TAG) != UNKNOWN]
    if not trained:
        reason = "was created for a model from DVC's cache; the run that trained it is not in this store"
        return _report("not known", own, reason)
    return _compare(project, stage, trained)


def _compare(project: Project, stage: str, runs: Sequence[FoundRun]) -> Check:
    """Compare the digests of runs with the lock; one that agrees is enough."""
    digests = read_locked_inputs(project.lock[stage]).compute_digests()
    complete = [run for run in runs if all(f"{DIGEST_TAG}{kind}" in run.tags for kind in KINDS)]
    if not complete:
        return _report(
            "not known", runs, "was logged by an earlier version, without digests of all its inputs"
        )
    for run in complete:
        if not _find_differing_kinds(run, digests):
            others = _count_others(len(runs) - 1)
            content = "the code, parameters, package versions and data in dvc.lock"
            relocked = "" if run.tags[CODE_DIGEST_TAG] == digests["code"] else RELOCKED
            return _report(
                "agrees", [run], f"trained it{_describe_commit(run)} from {content}{relocked}{others}"
            )
    differing = [CONTENT[kind] for kind in _find_differing_kinds(complete[0], digests)]
    return _report(
        "differs", complete, f"trained it from other {' and '.join(differing)} than dvc.lock records"
    )


def _find_differing_kinds(run: FoundRun, digests: Mapping[Kind, str]) -> list[Kind]:
    """Return the kinds of inputs of a run whose digests differ."""
    return [
        kind
        for kind in KINDS
        if run.tags[f"{DIGEST_TAG}{kind}"] != digests[kind]
        and not (kind == "code" and has_code(run, digests[kind]))
    ]


def has_code(run: FoundRun, digest: str) -> bool:
    """Return whether a run trained with the code of a digest, or with code that `relock` found equal."""
    return run.tags.get(CODE_DIGEST_TAG) == digest or build_equal_code_tag(digest) in run.tags


def build_equal_code_tag(digest: str) -> str:
    """Return the name of the tag of runs which records that the code of a digest has equal results."""
    return f"{CODE_DIGEST_TAG}.{digest}"


def _count_others(count: int) -> str:
    return f"; {count} other run{'s' if count > 1 else ''} made an equal model" if count else ""


def _describe_commit(run: FoundRun) -> str:
    commit = run.tags.get(COMMIT_TAG)
    if commit is None:
        return ""
    dirty = ", with changes that were not committed then," if run.tags.get(DIRTY_TAG) == "true" else ""
    return f" at commit {commit[:7]}{dirty}"


def _report(status: Status, runs: Sequence[FoundRun], message: str) -> Check:
    return Check(NAME, status, f"run {runs[0].id} of {runs[0].tags.get('stage')} {message}")
