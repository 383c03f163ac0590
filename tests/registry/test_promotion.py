"""Promotions and rollbacks of real models, with DVC, git and an MLflow store."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sentiment.errors import UserError
from sentiment.registry.git_tags import read_tags
from sentiment.registry.mirror import synchronize
from sentiment.registry.promotion import promote, rollback
from sentiment.registry.state import Registry, open_registry, require_champion
from tests.registry.registered_project import RegisteredProject
from tests.registry.repositories import Repository, add_origin, clone

UNREACHABLE = "http://127.0.0.1:1"


def _versions_by_alias() -> dict[str, str]:
    """The git tag of the version that each alias of the registered model names."""
    client = MlflowClient()
    model = client.get_registered_model("sentiment")
    return {
        alias: client.get_model_version("sentiment", number).tags["git.tag"]
        for alias, number in model.aliases.items()
    }


def _champion_of_gto(registered: RegisteredProject) -> str:
    return registered.project.run("gto", "show", "sentiment#champion", "--version").stdout.strip()


def _tag_names(registered: RegisteredProject) -> list[str]:
    return sorted(registered.git("tag").split())


def test_only_a_better_model_replaces_the_champion(registered: RegisteredProject) -> None:
    with pytest.raises(UserError, match="has no champion; `sentiment promote --first`"):
        promote(registered.untrained)
    first = promote(registered.untrained, first=True)
    assert first.tags == ("sentiment@v1.0.0", "sentiment#champion#1")
    assert first.champion.tag.details["Verdict"] == "first champion"

    with pytest.raises(UserError, match=r"--first: sentiment@v1\.0\.0 is the champion"):
        promote(registered.trained, first=True)
    second = promote(registered.trained)
    assert second.tags == ("sentiment@v2.0.0", "sentiment#champion#2")
    details = second.champion.tag.details
    assert details["Verdict"] == "better"
    assert details["Reason"].startswith(
        "compared with sentiment@v1.0.0 on the holdout split: better: AUC +0."
    )
    assert details["Previous"] == "sentiment@v1.0.0"

    before = _tag_names(registered)
    with pytest.raises(UserError, match=r"is not promoted: compared with .* worse: AUC -0"):
        promote(registered.untrained)
    with pytest.raises(UserError, match=r"no worse.*; it violates limits: behavioural test names: 1 of 2"):
        promote(registered.violating)
    assert _tag_names(registered) == before
    assert _versions_by_alias() == {"champion": "sentiment@v2.0.0", "challenger": "sentiment@v1.0.0"}

    output = registered.project.run(
        "dvc", "artifacts", "get", ".", "sentiment", "--stage", "champion", "-o", "champion"
    )
    assert "Downloaded" in output.stdout
    fetched = (registered.root / "champion" / "model.safetensors").read_bytes()
    assert fetched == (registered.root / "models" / "selected" / "model.safetensors").read_bytes()


def test_forced_promotion_needs_a_reason_and_records_the_objections(registered: RegisteredProject) -> None:
    promote(registered.trained, first=True)
    with pytest.raises(UserError, match="--force needs --reason"):
        promote(registered.violating, force=True)
    with pytest.raises(UserError, match="--reason: must have 1 to 1,000 characters"):
        promote(registered.violating, force=True, reason=" \n")
    change = promote(registered.violating, force=True, reason="fewer\nfalse positives")
    details = change.champion.tag.details
    assert details["Reason"] == "fewer false positives"
    assert details["Verdict"] == "no worse"
    assert "no worse" in details["Forced"]
    assert "names: 1 of 2" in details["Forced"]
    client = MlflowClient()
    version = client.get_model_version_by_alias("sentiment", "champion")
    assert version.tags["champion.reason"] == "fewer false positives"
    assert version.tags["champion.by"] == "test <test@localhost>"


def test_first_champion_must_keep_the_limits(registered: RegisteredProject) -> None:
    with pytest.raises(UserError, match="HEAD is not promoted: it violates limits"):
        promote(first=True)
    assert _tag_names(registered) == []


def test_two_rollbacks_restore_the_two_champions_before(registered: RegisteredProject) -> None:
    promote(registered.untrained, first=True)
    with pytest.raises(UserError, match=r"sentiment@v1\.0\.0 is the first champion"):
        rollback("it is slow")
    promote(registered.trained)
    promote(registered.violating, force=True, reason="trial")

    first = rollback("it is slow")
    assert first.tags == ("sentiment#champion!#4", "sentiment#champion#5")
    assert (first.champion.registration.name, first.champion.tag.reason) == ("sentiment@v2.0.0", "it is slow")
    assert _champion_of_gto(registered) == "v2.0.0"
    assert _versions_by_alias() == {"champion": "sentiment@v2.0.0", "challenger": "sentiment@v3.0.0"}

    assert rollback("still slow").champion.registration.name == "sentiment@v1.0.0"
    assert _champion_of_gto(registered) == "v1.0.0"
    with pytest.raises(UserError, match="none to go back to"):
        rollback("and again")

    again = promote(registered.trained)
    assert again.champion.registration.name == "sentiment@v2.0.0"
    assert _champion_of_gto(registered) == "v2.0.0"
    assert [other.registration.name for other in Registry(read_tags()).champions] == [
        "sentiment@v1.0.0",
        "sentiment@v2.0.0",
    ]


def test_promotion_killed_after_each_tag_is_completed_by_the_next_call(registered: RegisteredProject) -> None:
    promote(registered.untrained, first=True)
    change = promote(registered.trained)
    registered.git("tag", "--delete", change.tags[-1])
    assert require_champion(open_registry()).registration.name == "sentiment@v1.0.0"
    repeated = promote(registered.trained)
    assert repeated.tags == ("sentiment#champion#2",)
    assert repeated.champion.registration.name == "sentiment@v2.0.0"
    assert promote(registered.trained).tags == ()


def test_promotion_without_mlflow_is_mirrored_by_sync(registered: RegisteredProject) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": UNREACHABLE,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "DVC_ROOT": str(registered.root),
    }
    command = ("sentiment", "promote", registered.trained, "--first")
    output = registered.project.run(*command, **environment)
    assert "Cannot reach the MLflow tracking store" in output.stderr
    assert "`sentiment registry sync` mirrors them later" in output.stderr
    assert "git push" not in output.stdout, "there is no origin to publish the tags to"

    failed = registered.project.run("sentiment", "registry", "sync", status=2, **environment)
    assert failed.stderr.splitlines()[-1].startswith("error: Cannot reach the MLflow tracking store")
    synchronized = registered.project.run("sentiment", "registry", "sync")
    assert synchronized.stdout.splitlines() == [
        "sentiment@v1.0.0: created version 1",
        "alias champion: sentiment@v1.0.0, version 1",
    ]
    assert registered.project.run("sentiment", "registry", "sync").stdout == "nothing to change\n"

    shown = json.loads(registered.project.run("sentiment", "champion", "--json").stdout)
    expected = {
        "version": "sentiment@v1.0.0",
        "commit": registered.trained,
        "by": "test <test@localhost>",
        "reason": "first champion",
        "verdict": "first champion",
        "tag": "sentiment#champion#1",
    }
    assert expected.items() <= shown.items()
    text = registered.project.run("sentiment", "champion").stdout
    for value in expected.values():
        assert value in text


def test_uncommitted_parameters_decide_nothing(registered: RegisteredProject) -> None:
    promote(registered.untrained, first=True)
    registered.project.set_params({"evaluate.margin": 0.4})
    with pytest.raises(UserError, match=r"params\.yaml has changes that are not committed"):
        promote(registered.trained)


def _move_tag(registered: RegisteredProject, name: str, commit: str) -> None:
    """Move a tag to another commit, with its message and date."""
    message = registered.git("for-each-ref", "--format=%(contents)", f"refs/tags/{name}")
    date = registered.git("for-each-ref", "--format=%(taggerdate:raw)", f"refs/tags/{name}")
    command = ("git", "tag", "--force", "--annotate", "--message", message, name, commit)
    registered.project.run(*command, GIT_COMMITTER_DATE=f"@{date}")


def test_moved_tag_of_the_champion_is_named_without_origin(registered: RegisteredProject) -> None:
    promote(registered.untrained, first=True)
    promote(registered.trained)
    _move_tag(registered, "sentiment#champion#2", registered.untrained)
    error = registered.project.run("sentiment", "champion", status=2).stderr
    assert "the tag was moved, or its message was edited" in error


def test_moved_tags_are_neither_compared_with_nor_restored_nor_mirrored(
    registered: RegisteredProject,
) -> None:
    promote(registered.untrained, first=True)
    promote(registered.trained)
    for name in ("sentiment@v1.0.0", "sentiment#champion#1"):
        _move_tag(registered, name, registered.violating)
    with pytest.raises(UserError, match=r"sentiment#champion#1: its message records .* the tag was moved"):
        rollback("slow")
    assert any("sentiment@v1.0.0: not mirrored" in line for line in synchronize(open_registry()))


def test_champion_is_status_2_if_there_is_none(registered: RegisteredProject) -> None:
    output = registered.project.run("sentiment", "champion", status=2)
    assert output.stderr.splitlines()[-1].startswith("error: sentiment has no champion")
    assert output.stdout == ""


def test_push_publishes_the_tags_for_other_clones(registered: RegisteredProject, tmp_path: Path) -> None:
    repository = Repository(registered.root)
    origin = add_origin(repository)
    promote(registered.untrained, first=True, push=True)
    promote(registered.trained)
    other = clone(origin, tmp_path / "other")
    assert sorted(other.git("tag").split()) == ["sentiment#champion#1", "sentiment@v1.0.0"]
    promote(registered.trained, push=True)
    other.git("fetch", "--tags")
    assert "sentiment#champion#2" in other.git("tag").split()

    tags = ("sentiment#champion#3", "sentiment@v9.0.0")
    for name in tags:
        other.tag(name, "HEAD", 5000)
    other.git("push", "-q", "origin", "--tags")
    with pytest.raises(UserError, match="registered at origin, missing in this clone"):
        promote(registered.untrained, force=True, reason="race")


def test_champion_that_another_clone_pushes_meanwhile_refuses_the_push(
    registered: RegisteredProject, tmp_path: Path
) -> None:
    """The other clone pushes tags of the same names when the first one is created here."""
    origin = add_origin(Repository(registered.root))
    promote(registered.untrained, first=True, push=True)
    other = clone(origin, tmp_path / "other")
    other.tag("sentiment@v2.0.0", registered.violating, 5000)
    other.tag("sentiment#champion#2", registered.violating, 5001, action="promote")
    hook = registered.root / ".git" / "hooks" / "reference-transaction"
    hook.write_text(
        "#!/bin/sh\nunset $(git rev-parse --local-env-vars)\n"
        f"[ $1 = committed ] && git -C {other.root} push -q --tags origin\nexit 0\n"
    )
    hook.chmod(0o755)
    with pytest.raises(UserError, match=r"are not at origin(.|\n)*To withdraw them: git tag --delete"):
        promote(registered.trained, push=True)
    names = "sentiment@v2.0.0", "sentiment#champion#2"
    commits = [Repository(origin).git("rev-parse", f"{name}^{{commit}}") for name in names]
    assert commits == [registered.violating] * 2
    with pytest.raises(UserError, match="not the same tag here and at origin"):
        open_registry()


def test_push_also_publishes_earlier_changes(registered: RegisteredProject, tmp_path: Path) -> None:
    """Without them, another clone would have no champion to go back to."""
    origin = add_origin(Repository(registered.root))
    promote(registered.untrained, first=True)
    assert promote(registered.trained, push=True).unpublished == ()
    other = clone(origin, tmp_path / "other")
    assert sorted(other.git("tag").split()) == _tag_names(registered)


def test_tag_without_author_names_the_command_that_removes_it(registered: RegisteredProject) -> None:
    registered.git("tag", "sentiment#champion#1")
    with pytest.raises(UserError, match=r"git tag --delete 'sentiment#champion#1'"):
        promote(registered.untrained, first=True)
    assert _tag_names(registered) == ["sentiment#champion#1"]
    registered.git("tag", "--delete", "sentiment#champion#1")
    assert promote(registered.untrained, first=True).champion.registration.name == "sentiment@v1.0.0"


def test_without_origin_nothing_is_to_be_published(registered: RegisteredProject) -> None:
    with pytest.raises(UserError, match="no remote origin"):
        promote(registered.untrained, first=True, push=True)
    assert _tag_names(registered) == []
    assert "publish" not in promote(registered.untrained, first=True).describe()


def test_unpublished_rollback_is_not_repeated(registered: RegisteredProject) -> None:
    origin = add_origin(Repository(registered.root))
    promote(registered.untrained, first=True, push=True)
    promote(registered.trained, push=True)
    promote(registered.violating, force=True, reason="trial", push=True)
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UserError, match="exist here but are not at origin"):
        rollback("it is slow", push=True)
    hook.unlink()
    with pytest.raises(UserError, match=r"the last rollback, to sentiment@v2\.0\.0, is not published"):
        rollback("it is slow", push=True)
    assert require_champion(open_registry()).registration.name == "sentiment@v2.0.0"


def test_inputs_that_cannot_be_promoted_are_named(
    registered: RegisteredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no-such-revision: no such git revision"):
        promote("no-such-revision", first=True)
    with pytest.raises(UserError, match=r"this commit has no dvc\.lock"):
        promote(f"{registered.untrained}~2", first=True)

    metrics = registered.root / "metrics" / "evaluate.json"
    original = metrics.read_text()
    metrics.write_text(original.replace('"violated_limits"', '"violated"'))
    registered.project.commit("edited metrics")
    with pytest.raises(UserError, match=r"metrics/evaluate\.json is not the file that dvc\.lock records"):
        promote(first=True)

    registered.project.run("dvc", "commit", "--force", "--quiet")
    registered.project.commit("other format")
    with pytest.raises(UserError, match="an earlier version of the code wrote it"):
        promote(first=True)

    (registered.root / "dvc.lock").write_text("stages: {evaluate: {outs: 3}}")
    registered.project.commit("edited lock")
    with pytest.raises(UserError, match=r"dvc\.lock of this commit has no hash of models/selected"):
        promote(first=True)

    monkeypatch.setenv("DVC_ROOT", str(registered.root))
    for path in (registered.root / ".dvc" / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(UserError, match="cannot get models/selected of this revision"):
        promote(registered.trained, first=True)
    assert _tag_names(registered) == []
