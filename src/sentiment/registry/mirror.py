"""MLflow's mirror of the registry: `sentiment registry sync`."""

import logging
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from sentiment.comparison import fetch_model
from sentiment.errors import UserError
from sentiment.lineage import SECTIONS_BY_STAGE, find_or_create_model_run
from sentiment.registry.git_tags import ARTIFACT, CHAMPION, RegistryTag
from sentiment.registry.revision import CommittedModel, read_registered_model
from sentiment.registry.state import Registry
from sentiment.tracking import Run, Store, find_tagged_run, open_store
from sentiment.tracking.logged_model import find_model_of_run, log_model
from sentiment.tracking.origin_tags import CODE_TAG, DATA_TAG, MODEL_TAG, PARAMS_TAG
from sentiment.tracking.provenance import COMMIT_TAG
from sentiment.tracking.registered_model import ModelVersion, RegisteredModel, VersionContent, get_model_id

logger = logging.getLogger(__name__)

CHALLENGER = "challenger"
"""Alias of the newest registered version that is not the champion."""

DESCRIPTION = (
    "Mirror of the git tags of the artifact `sentiment`, written by `sentiment registry sync`; change the "
    "tags with `sentiment promote` and `sentiment rollback`, not the versions here."
)
DIGEST_TAGS = (PARAMS_TAG, DATA_TAG, CODE_TAG)
"""Tags of a run that its model version gets as well."""


def synchronize(registry: Registry) -> Iterator[str]:
    """Make MLflow's registered model agree with git; yield a line for each change.

    Versions are matched by the name of their git tag. Versions that other programs created, and versions
    whose tag is not in this clone, stay as they are.

    Args:
        registry: state of the registry in git.

    Raises:
        UserError: the tracking store cannot be reached.
    """
    store = open_store()
    registered = RegisteredModel.open(store, ARTIFACT, DESCRIPTION)
    mirrored = registered.find_versions()
    numbers: dict[str, int] = {}
    for tag in registry.versions.values():
        versions = mirrored.pop(tag.name, [])
        for version in versions[1:]:
            registered.delete_version(version)
            yield f"{tag.name}: deleted version {version.version}, a duplicate of {versions[0].version}"
        try:
            model = read_registered_model(tag)
        except UserError as error:
            yield f"{tag.name}: not mirrored: {error}"
        else:
            numbers[tag.name] = yield from _mirror_version(
                store, registered, registry, tag, model, versions[0] if versions else None
            )
    yield from _handle_unregistered(registered, registry, mirrored)
    names = {CHAMPION: registry.champion and registry.champion.registration, CHALLENGER: registry.challenger}
    for alias, target in names.items():
        number = numbers.get(target.name) if target else None
        if registered.set_alias(alias, number):
            yield f"alias {alias}: {f'{target.name}, version {number}' if target and number else 'deleted'}"


def _mirror_version(
    store: Store,
    registered: RegisteredModel,
    registry: Registry,
    tag: RegistryTag,
    model: CommittedModel,
    version: ModelVersion | None,
) -> Generator[str, None, int]:
    """Create or update the version of a git tag; yield a line for each change and return its number.

    A version whose model differs is replaced, since MLflow cannot change the model of a version.
    """
    obsolete = None if version is None else _explain_obsolete(registered, version, tag, model)
    model_id = None if version is None or obsolete else get_model_id(version)
    if model_id is None:
        model_id = _find_or_log_model(store, model)
        if version is not None and not obsolete and model_id is not None:
            obsolete = "had no logged model"
    content = _build_content(store, registry, tag, model, model_id)
    if version is not None and not obsolete:
        if changed := registered.update_version(version, content):
            yield f"{tag.name}: updated {', '.join(changed)} of version {version.version}"
        return int(version.version)
    if version is not None:
        registered.delete_version(version)
        yield f"{tag.name}: deleted version {version.version}, which {obsolete}"
    number = registered.create_version(content)
    lacking = "" if model_id else " without a logged model: neither MLflow nor DVC has the model"
    yield f"{tag.name}: created version {number}{lacking}"
    return number


def _explain_obsolete(
    registered: RegisteredModel, version: ModelVersion, tag: RegistryTag, model: CommittedModel
) -> str | None:
    """Return why a version must be replaced; None if it need not."""
    if version.tags.get(COMMIT_TAG) != tag.commit or version.tags.get(MODEL_TAG) != model.model_md5:
        return "was of another commit"
    return None if registered.has_model(version) else "had a logged model that was deleted"


def _handle_unregistered(
    registered: RegisteredModel, registry: Registry, mirrored: Mapping[str, list[ModelVersion]]
) -> Iterator[str]:
    """Delete the versions of deregistered tags; report those whose tag may be in another clone only."""
    deregistered = {tag.name for tag in registry.tags}
    for name, versions in mirrored.items():
        for version in versions:
            if name in deregistered:
                registered.delete_version(version)
                yield f"{name}: deleted version {version.version}, which was deregistered"
            else:
                logger.warning(
                    "%s: version %s stays in MLflow, though this clone has no such tag", name, version.version
                )


def _find_or_log_model(store: Store, model: CommittedModel) -> str | None:
    """Return the id of the logged model; log it from DVC's files if the store has none.

    Returns:
        The id; None if neither the store nor DVC's cache and remote have the model.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = fetch_model(model.commit, Path(temporary) / "model")
        except UserError:
            run = find_tagged_run(store, {MODEL_TAG: model.model_md5, "stage": model.stage})
            return find_model_of_run(run, model.candidate) if run else None
        run = find_or_create_model_run(store, folder, model.stage)
        model_id = log_model(run, model.candidate, folder)
    _complete_run(run, model, model_id)
    return model_id


def _complete_run(run: Run, model: CommittedModel, model_id: str) -> None:
    """Log parameters and metrics that git records to a run that lacks them, as in a new store."""
    client = run.store.client
    if model.metrics.keys() - client.get_run(run.id).data.metrics.keys():
        run.log_params(
            {
                name: value
                for name, value in model.params.get(model.stage, {}).items()
                if name in SECTIONS_BY_STAGE[model.stage]
            }
        )
        run.log_model_metrics(model.metrics, model_id)


def _build_content(
    store: Store, registry: Registry, tag: RegistryTag, model: CommittedModel, model_id: str | None
) -> VersionContent:
    run = find_tagged_run(store, {MODEL_TAG: model.model_md5, "stage": model.stage})
    digests = {name: value for name, value in (run.tags() if run else {}).items() if name in DIGEST_TAGS}
    tags = {
        COMMIT_TAG: tag.commit,
        MODEL_TAG: model.model_md5,
        "artifact.md5": model.artifact_md5,
        "candidate": model.candidate,
        **digests,
        **{name: f"{value:g}" for name, value in model.metrics.items()},
        "registered.by": tag.author,
        "registered.at": tag.created.isoformat(),
        "registered.reason": tag.reason,
    }
    lines = [f"`{tag.name}`, registered by {tag.author} at {tag.created.isoformat()}: {tag.reason}"]
    assignments = [
        other
        for other in registry.tags
        if other.stage == CHAMPION and other.commit == tag.commit and not other.is_cancellation
    ]
    if assignments:
        newest = assignments[-1]
        tags |= {
            "champion.tag": newest.name,
            "champion.by": newest.author,
            "champion.since": newest.created.isoformat(),
            "champion.reason": newest.reason,
        }
        if verdict := newest.details.get("Verdict"):
            tags["champion.verdict"] = verdict
        lines.append(f"Champion by {newest.author} at {newest.created.isoformat()}: {newest.reason}")
    source = f"dvc:{model.commit}/models/selected"
    return VersionContent(tag.name, source, model_id, tags, "\n\n".join(lines))
