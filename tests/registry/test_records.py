"""Promotions by a decision of the ledger: by `sentiment promote`, and by the script that needs git only."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.ledger import LedgerEntry, append, push_ledger
from sentiment.registry.git_tags import RegistryTag, read_tags
from sentiment.registry.promotion import promote, rollback
from sentiment.registry.revision import read_committed_model
from sentiment.registry.state import Registry
from tests.project import ROOT
from tests.registry.registered_project import HOLDOUT, RegisteredProject
from tests.registry.repositories import Repository, add_origin, clone

SCRIPT = ROOT / ".github" / "scripts" / "assign-champion.sh"


def _decide(champion: str | None, challenger: str, verdict: str = "no worse", **changes: str) -> LedgerEntry:
    """Append and push the decision on the model of a commit and that of another one."""
    md5s = [commit and read_committed_model(commit).artifact_md5 for commit in (champion, challenger)]
    entry = LedgerEntry(
        outcome="not_better" if verdict == "worse" else "promote",
        reason=changes.get("reason", 'compared with "the old one" \\ é: no worse, AUC +0.0001'),
        test=changes.get("test", "7" * 32),
        champion=md5s[0],
        challenger=md5s[1],
        batch=None,
        commit=challenger,
        created=changes.get("created", "2026-11-26T10:00:00+00:00"),
        is_look=True,
        verdict=verdict,
        details={"champion": md5s[1], "challenger": md5s[0]},
    )
    append(entry)
    push_ledger()
    return entry


@pytest.fixture
def origin(registered: RegisteredProject) -> Path:
    return add_origin(Repository(registered.root))


def _describe(tag: RegistryTag) -> tuple[object, ...]:
    return tag.name, tag.commit, tag.subject, list(tag.details.items())


def _run_script(repository: Repository, commit: str) -> subprocess.CompletedProcess[str]:
    repository.git("checkout", "-q", "--detach", commit)
    return subprocess.run([SCRIPT], cwd=repository.root, capture_output=True, text=True, check=False)


def test_decision_of_the_ledger_takes_the_place_of_a_comparison(
    registered: RegisteredProject, origin: Path
) -> None:
    _decide(None, registered.trained, "first champion", reason="first champion: within all limits")
    first = promote(registered.trained)
    assert first.champion.tag.details["Verdict"] == "first champion"
    with pytest.raises(UserError, match=r"is not promoted: compared with .* worse: AUC -0"):
        promote(registered.untrained)
    entry = _decide(registered.trained, registered.untrained)
    details = promote(registered.untrained).champion.tag.details
    assert details["Reason"] == details["Comparison"] == entry.reason
    assert (details["Verdict"], details["Ledger-ID"]) == ("no worse", entry.id)
    assert (details["Test-MD5"], details["Previous"]) == ("7" * 32, "sentiment@v1.0.0")
    _decide(registered.untrained, registered.violating)
    with pytest.raises(UserError, match="it violates limits"):
        promote(registered.violating)
    history = json.loads(registered.project.run("sentiment", "history", "--json").stdout)
    assert Counter(row["decision"] for row in history) == {"promote": 3, "champion": 2}


def test_holdout_split_must_be_the_committed_one(registered: RegisteredProject) -> None:
    promote(registered.untrained, first=True)
    (registered.root / HOLDOUT).unlink()
    shutil.copy(registered.root / "data" / "reviews" / "validation.parquet", registered.root / HOLDOUT)
    with pytest.raises(UserError, match=r"holdout\.parquet is not the one in the committed dvc\.lock"):
        promote(registered.trained)


def test_script_creates_the_tags_of_promote(
    registered: RegisteredProject, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same promotions, in two copies of the origin: in one by the script, in the other by promote."""
    _decide(None, registered.untrained, "first champion", reason="first champion: within all limits")
    _decide(registered.untrained, registered.trained, created="2026-11-26T10:00:01+00:00")
    other = tmp_path / "other-origin.git"
    shutil.copytree(origin, other)
    runner = clone(other, tmp_path / "runner", "--depth=1", "--no-single-branch")
    runner.git("fetch", "-q", "--depth=5", "origin", "main")

    for commit, version in ((registered.untrained, "v1"), (registered.trained, "v2")):
        promote(commit, push=True)
        done = _run_script(runner, commit)
        assert done.returncode == 0, done.stderr
        assert f"sentiment@{version}.0.0 is the champion: " in done.stdout
        repeated = _run_script(runner, commit)
        assert repeated.returncode == 0
        assert "the model is that of the champion" in repeated.stdout

    expected = [_describe(tag) for tag in read_tags()]
    monkeypatch.chdir(other)
    assert [_describe(tag) for tag in read_tags()] == expected
    assert [champion.registration.name for champion in Registry(read_tags()).champions] == [
        "sentiment@v1.0.0",
        "sentiment@v2.0.0",
    ]


def test_script_registers_a_model_that_no_decision_promotes(
    registered: RegisteredProject, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registered.untrained, first=True, push=True)
    _decide(registered.violating, registered.trained)  # in place of another champion
    runner = clone(origin, tmp_path / "runner")
    done = _run_script(runner, registered.trained)
    assert "sentiment@v2.0.0 is registered; no decision" in done.stdout
    assert "sentiment@v2.0.0 is registered already" in _run_script(runner, registered.trained).stdout
    _decide(registered.untrained, registered.violating)
    assert "violates limits" in _run_script(runner, registered.violating).stdout
    monkeypatch.chdir(origin)
    registry = Registry(read_tags())
    assert [tag.name for tag in registry.versions.values()] == [f"sentiment@v{n}.0.0" for n in (1, 2, 3)]
    assert [champion.registration.name for champion in registry.champions] == ["sentiment@v1.0.0"]
    monkeypatch.chdir(registered.root)
    registered.git("fetch", "-q", "--tags")

    _decide(registered.untrained, registered.trained)
    assert "sentiment@v2.0.0 is the champion" in _run_script(runner, registered.trained).stdout


def test_decision_counts_once(registered: RegisteredProject, origin: Path, tmp_path: Path) -> None:
    """After a rollback, neither the script nor `promote` takes it for the next commit with the same model."""
    promote(registered.trained, first=True)
    _decide(registered.trained, registered.untrained, created="2000-01-01T00:00:00+00:00")
    promote(registered.untrained)
    rollback("slow", push=True)
    registered.git("checkout", "-q", "--detach", registered.untrained)
    with (registered.root / "dvc.lock").open("a") as lock:
        lock.write("# another line, the same model\n")
    registered.project.commit("change of dvc.lock")
    commit = registered.git("rev-parse", "HEAD")
    registered.git("push", "-q", "origin", "HEAD:refs/heads/again")
    runner = clone(origin, tmp_path / "runner")

    later: list[dict[str, str]] = [
        {},
        {"test": "8" * 32, "created": "2000-01-02T00:00:00+00:00"},  # before the promotion, on another split
        {"test": "9" * 32, "created": "2999-01-01T00:00:00+00:00"},
    ]
    for changes in later:
        if changes:
            _decide(registered.trained, registered.untrained, **changes)
        if changes.get("test") == "9" * 32:  # the newest decision is another one
            worse = {"test": "a" * 32, "created": "2999-01-02T00:00:00+00:00"}
            _decide(registered.trained, registered.untrained, "worse", **worse)
        assert "no decision of the ledger promotes it" in _run_script(runner, commit).stdout
        registered.git("fetch", "-q", "--tags", "origin")
        with pytest.raises(UserError, match=r"is not promoted: compared with .* worse: AUC -0"):
            promote(commit)

    newest = {"test": "b" * 32, "created": "2999-01-03T00:00:00+00:00"}
    entry = _decide(registered.trained, registered.untrained, **newest)
    assert promote(commit).champion.tag.details["Ledger-ID"] == entry.id
    assert "sentiment@v3.0.0 is the champion" in _run_script(runner, commit).stdout


def test_script_refuses_metrics_that_the_lock_does_not_record(
    registered: RegisteredProject, origin: Path, tmp_path: Path
) -> None:
    _decide(None, registered.violating, "first champion")
    runner = clone(origin, tmp_path / "runner")
    runner.git("checkout", "-q", "--detach", registered.violating)
    path = runner.root / "metrics" / "evaluate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"violated_limits": []}))
    runner.git("commit", "-qam", "edited metrics")
    done = _run_script(runner, "HEAD")
    assert done.returncode == 1
    assert "metrics/evaluate.json is not the file that dvc.lock of this commit records" in done.stderr
    assert runner.git("tag") == ""


def test_script_leaves_no_tag_where_the_push_is_refused(
    registered: RegisteredProject, origin: Path, tmp_path: Path
) -> None:
    _decide(None, registered.trained, "first champion")
    runner = clone(origin, tmp_path / "runner")
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no more tags >&2\nexit 1\n")
    hook.chmod(0o755)
    done = _run_script(runner, registered.trained)
    assert done.returncode == 1
    assert "no more tags" in done.stderr
    assert "were not pushed" in done.stderr
    assert runner.git("tag") == ""
