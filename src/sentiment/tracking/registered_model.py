"""MLflow's model registry: the registered model, its versions and aliases, as a mirror of given content."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from sentiment.tracking.logged_model import REGISTERED_TAG, find_logged_model
from sentiment.tracking.mlflow_store import Store

__all__ = ["ModelVersion", "RegisteredModel", "VersionContent", "get_model_id"]

GIT_TAG = "git.tag"
"""Tag of a model version: name of the git tag that it mirrors. MLflow numbers the versions of each store from
1, so the number identifies nothing outside its store."""

MODEL_ID_TAG = "logged_model"
"""Tag of a model version: id of its logged model, or `NO_MODEL`."""

NO_MODEL = "none"


@dataclass(frozen=True)
class VersionContent:
    """What a model version shows.

    Attributes:
        git_tag: name of the git tag.
        source: where the model is, if the store has no logged model.
        model_id: id of the logged model; None if the store has none.
        tags: other tags by name.
        description: description, at most 5,000 characters.
    """

    git_tag: str
    source: str
    model_id: str | None
    tags: Mapping[str, str]
    description: str

    @property
    def all_tags(self) -> dict[str, str]:
        """All tags, with those that link the version to git and to the logged model."""
        return {**self.tags, GIT_TAG: self.git_tag, MODEL_ID_TAG: self.model_id or NO_MODEL}


class RegisteredModel:
    """A registered model in the tracking store."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client = client
        self.name = name

    @classmethod
    def open(cls, store: Store, name: str, description: str) -> Self:
        """Return the registered model; create it if the store has none."""
        try:
            store.client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        return cls(store.client, name)

    def find_versions(self) -> dict[str, list[ModelVersion]]:
        """Return the versions by the git tag that they mirror, oldest first; without versions of others."""
        versions: dict[str, list[ModelVersion]] = {}
        for version in sorted(self._search(), key=lambda version: int(version.version)):
            if git_tag := version.tags.get(GIT_TAG):
                versions.setdefault(git_tag, []).append(version)
        return versions

    def _search(self) -> Iterator[ModelVersion]:
        token = None
        while True:
            page = self._client.search_model_versions(f"name='{self.name}'", page_token=token)
            yield from page
            if not (token := page.token):
                return

    def has_model(self, version: ModelVersion) -> bool:
        """Return whether the logged model of a version still exists; True if the version has none."""
        model_id = get_model_id(version)
        return model_id is None or find_logged_model(self._client, model_id) is not None

    def create_version(self, content: VersionContent) -> int:
        """Create a version with all its tags in one request; return its number."""
        if content.model_id is not None:
            self._client.set_logged_model_tags(content.model_id, {REGISTERED_TAG: content.git_tag})
        version = self._client.create_model_version(
            self.name,
            content.source if content.model_id is None else f"models:/{content.model_id}",
            tags=content.all_tags,
            description=content.description,
            model_id=content.model_id,
        )
        return int(version.version)

    def update_version(self, version: ModelVersion, content: VersionContent) -> list[str]:
        """Set what differs in tags and description; return the names of what changed."""
        tags, current = content.all_tags, dict(version.tags)
        changed = [name for name, value in tags.items() if current.get(name) != value]
        for name in changed:
            self._client.set_model_version_tag(self.name, version.version, name, tags[name])
        stale = [name for name in current if name not in tags]
        for name in stale:
            self._client.delete_model_version_tag(self.name, version.version, name)
        if (version.description or "") != content.description:
            self._client.update_model_version(self.name, version.version, content.description)
            return [*changed, *stale, "description"]
        return [*changed, *stale]

    def delete_version(self, version: ModelVersion) -> None:
        """Delete a version; its run and its logged model stay."""
        self._client.delete_model_version(self.name, version.version)

    def set_alias(self, alias: str, number: int | None) -> bool:
        """Let an alias name a version, or delete it for None; return whether it changed."""
        aliases = self._client.get_registered_model(self.name).aliases
        current = int(aliases[alias]) if alias in aliases else None
        if current == number:
            return False
        if number is None:
            self._client.delete_registered_model_alias(self.name, alias)
        else:
            self._client.set_registered_model_alias(self.name, alias, str(number))
        return True


def get_model_id(version: ModelVersion) -> str | None:
    """Return the id of the logged model of a version; None if it has none."""
    model_id = version.tags.get(MODEL_ID_TAG, NO_MODEL)
    return None if model_id == NO_MODEL else str(model_id)
