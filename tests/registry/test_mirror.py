"""MLflow's mirror of the registry, in a real SQLite store that is changed or lost in between."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from sentiment.lineage import find_model_run
from sentiment.model.model_config import load_config
from sentiment.registry.git_tags import read_tags
from sentiment.registry.mirror import synchronize
from sentiment.registry.state import Registry
from sentiment.tracking import open_store
from sentiment.tracking.logged_model import SIGNATURE, log_model
from tests.registry.registered_project import RegisteredProject
from tests.registry.repositories import Repository

V1, V2 = "sentiment@v1.0.0", "sentiment@v2.0.0"


@pytest.fixture
def tagged(registered: RegisteredProject) -> RegisteredProject:
    """The untrained model is the version 1, the trained one the version 2 and the champion."""
    repository = Repository(registered.root)
    for number, commit in enumerate((registered.untrained, registered.trained), start=1):
        repository.tag(f"sentiment@v{number}.0.0", commit, 1000 + number, action="promote")
        repository.tag(f"sentiment#champion#{number}", commit, 1000 + number, action="promote")
    return registered


def _synchronize() -> list[str]:
    return list(synchronize(Registry(read_tags())))


def _versions() -> dict[str, ModelVersion]:
    """The versions of the registered model by git tag; each tag has one."""
    versions = MlflowClient().search_model_versions("name='sentiment'")
    by_tag = {version.tags.get("git.tag", f"other {version.version}"): version for version in versions}
    assert len(by_tag) == len(versions)
    return by_tag


def _aliases() -> dict[str, str]:
    client = MlflowClient()
    aliases = client.get_registered_model("sentiment").aliases
    return {
        alias: client.get_model_version("sentiment", number).tags["git.tag"]
        for alias, number in aliases.items()
    }


def _lose_cache(root: Path) -> Path:
    cache = root / ".dvc" / "cache"
    return cache.rename(root / ".dvc" / "lost")


def test_new_store_gets_versions_with_model_metrics_digests_and_reasons(tagged: RegisteredProject) -> None:
    changes = _synchronize()
    assert changes == [
        f"{V1}: created version 1",
        f"{V2}: created version 2",
        f"alias champion: {V2}, version 2",
        f"alias challenger: {V1}, version 1",
    ]
    version = _versions()[V2]
    metrics = tagged.project.metrics("evaluate")
    selected = metrics["selected"]
    origin = load_config(tagged.root / "models" / "selected").origin
    assert origin is not None
    expected = {
        "git.commit": tagged.trained,
        "candidate": selected,
        "params.digest": origin.params,
        "data.digest": origin.data,
        "code.digest": origin.code,
        "test.auc": f"{metrics['models'][selected]['test']['auc']:g}",
        "champion.tag": "sentiment#champion#2",
        "champion.by": "test <test@localhost>",
        "champion.since": "1970-01-01T00:16:42+00:00",
        "champion.reason": "because of sentiment#champion#2",
        "registered.reason": f"because of {V2}",
    }
    assert expected.items() <= version.tags.items()
    assert "because of sentiment#champion#2" in version.description
    assert mlflow.models.get_model_info("models:/sentiment@champion").signature == SIGNATURE
    run = MlflowClient().get_run(version.run_id)
    assert run.data.tags["model.md5"] == version.tags["model.md5"]
    assert run.data.metrics["test.auc"] == metrics["models"][selected]["test"]["auc"]
    assert run.data.params["train.epochs"] == "2"
    assert _synchronize() == []


def test_new_store_is_filled_by_tag_whatever_its_numbers(
    tagged: RegisteredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _synchronize()
    before = {tag: dict(version.tags) for tag, version in _versions().items()}
    aliases = _aliases()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tagged.root}/mlruns/new.db")
    client = open_store().client
    client.create_registered_model("sentiment")
    client.create_model_version("sentiment", "s3://somewhere/else", tags={"owner": "another program"})
    assert f"{V1}: created version 2" in _synchronize()
    after = {tag: dict(version.tags) for tag, version in _versions().items()}
    assert after.pop("other 1") == {"owner": "another program"}
    assert _aliases() == aliases
    for tags in (*before.values(), *after.values()):
        del tags["logged_model"]
    assert after == before


def test_changes_by_hand_are_reverted_and_listed(tagged: RegisteredProject) -> None:
    _synchronize()
    client, versions = MlflowClient(), _versions()
    client.set_registered_model_alias("sentiment", "champion", versions[V1].version)
    client.delete_registered_model_alias("sentiment", "challenger")
    client.set_model_version_tag("sentiment", versions[V1].version, "test.auc", "0.99")
    client.set_model_version_tag("sentiment", versions[V1].version, "note", "mine")
    client.update_model_version("sentiment", versions[V2].version, "the best")
    copy = client.create_model_version("sentiment", versions[V2].source, tags=dict(versions[V2].tags))
    assert sorted(_synchronize()) == sorted(
        [
            f"{V1}: updated test.auc, note of version 1",
            f"{V2}: deleted version {copy.version}, a duplicate of 2",
            f"{V2}: updated description of version 2",
            f"alias champion: {V2}, version 2",
            f"alias challenger: {V1}, version 1",
        ]
    )
    client.delete_model_version("sentiment", versions[V2].version)
    client.delete_logged_model(versions[V1].tags["logged_model"])
    assert _synchronize() == [
        f"{V1}: deleted version 1, which had a logged model that was deleted",
        f"{V1}: created version 4",
        f"{V2}: created version 5",
        f"alias champion: {V2}, version 5",
        f"alias challenger: {V1}, version 4",
    ]
    assert _synchronize() == []


def test_model_that_dvc_lost_has_a_version_without_logged_model_until_it_is_back(
    tagged: RegisteredProject,
) -> None:
    lost = _lose_cache(tagged.root)
    changes = _synchronize()
    assert f"{V2}: created version 2 without a logged model: neither MLflow nor DVC has the model" in changes
    version = _versions()[V2]
    assert (version.tags["logged_model"], version.run_id) == ("none", None)
    assert version.source == f"dvc:{tagged.trained}/models/selected"
    assert _synchronize() == []

    shutil.rmtree(tagged.root / ".dvc" / "cache", ignore_errors=True)
    lost.rename(tagged.root / ".dvc" / "cache")
    assert f"{V2}: deleted version 2, which had no logged model" in _synchronize()
    assert _versions()[V2].tags["logged_model"] != "none"
    assert _aliases()["champion"] == V2


def test_model_that_only_mlflow_has_is_found_by_its_hash(tagged: RegisteredProject) -> None:
    _synchronize()
    model_id = _versions()[V2].tags["logged_model"]
    MlflowClient().delete_registered_model("sentiment")
    _lose_cache(tagged.root)
    _synchronize()
    assert _versions()[V2].tags["logged_model"] == model_id


def test_moved_and_deregistered_tags_change_their_versions(
    tagged: RegisteredProject, caplog: pytest.LogCaptureFixture
) -> None:
    _synchronize()
    repository = Repository(tagged.root)
    repository.git("tag", "--delete", V2, "sentiment#champion#2")
    repository.tag(V2, tagged.violating, 2000, action="promote")
    assert _synchronize() == [
        f"{V2}: deleted version 2, which was of another commit",
        f"{V2}: created version 3",
        f"alias champion: {V1}, version 1",
        f"alias challenger: {V2}, version 3",
    ]
    repository.tag(f"{V2}!", tagged.violating, 2001)
    assert f"{V2}: deleted version 3, which was deregistered" in _synchronize()
    assert _aliases() == {"champion": V1}
    repository.git("tag", "--delete", V1, "sentiment#champion#1")
    assert _synchronize() == ["alias champion: deleted"]
    assert f"{V1}: version 1 stays in MLflow, though this clone has no such tag" in caplog.messages


def test_another_calibration_of_a_registered_model_is_logged_beside_it(tagged: RegisteredProject) -> None:
    _synchronize()
    version = _versions()[V2]
    store, folder = open_store(), tagged.root / "models" / "selected"  # of the commit `violating`
    run = find_model_run(store, folder, "train" if version.tags["candidate"] == "baseline" else "tune")
    assert run is not None
    model_id = log_model(run, version.tags["candidate"], folder)
    assert model_id != version.tags["logged_model"]
    assert log_model(run, version.tags["candidate"], folder) == model_id
    assert _synchronize() == []
