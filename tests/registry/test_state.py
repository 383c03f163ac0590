"""The registry's tags as this package, GTO and DVC read them."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from sentiment.errors import UserError
from sentiment.ledger import LedgerEntry
from sentiment.registry.git_tags import create_tag, read_tags, resolve_commit
from sentiment.registry.state import Registry, require_champion, require_complete
from tests.registry.repositories import Repository, make_repository, run_gto


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = make_repository(tmp_path / "repository")
    monkeypatch.chdir(repository.root)
    return repository


def _read() -> Registry:
    return Registry(read_tags())


def _champion_versions() -> list[str]:
    return [assignment.registration.name.removeprefix("sentiment@") for assignment in _read().champions]


def _commits(repository: Repository, count: int) -> list[str]:
    """Commits with the versions v1.0.0, v2.0.0 and so on, without a stage."""
    commits = [repository.commit(f"model {number}") for number in range(1, count + 1)]
    for number, commit in enumerate(commits, start=1):
        repository.tag(f"sentiment@v{number}.0.0", commit, 1000 + number)
    return commits


def test_tags_of_gto_are_read(repository: Repository) -> None:
    first = repository.commit("first")
    run_gto("register", "sentiment", first, "--version", "v1.0.0", "--message", "from GTO")
    run_gto("assign", "sentiment", "--version", "v1.0.0", "--stage", "champion", "--message", "chosen in GTO")
    champion = require_champion(_read())
    assert (champion.tag.commit, champion.registration.name) == (first, "sentiment@v1.0.0")
    assert (champion.tag.author, champion.tag.reason) == ("Ada <ada@localhost>", "chosen in GTO")
    assert _read().name_next_version() == "sentiment@v2.0.0"


def test_dvc_reads_the_newest_of_ten_assignments_within_a_second(repository: Repository) -> None:
    commits = _commits(repository, 2)
    Repo.init(".")
    for number in range(12):
        registry = _read()
        name = f"sentiment#champion#{registry.next_counter}"
        create_tag(name, commits[number % 2], "Assign champion", {}, after=registry.newest_time)
        assert _champion_versions()[-1] == f"v{number % 2 + 1}.0.0"
        assert Repo(".").artifacts.get_rev("sentiment", stage="champion") == commits[number % 2]


def test_date_of_a_new_tag_is_later_than_one_from_a_clock_that_is_ahead(repository: Repository) -> None:
    (commit,) = _commits(repository, 1)
    repository.tag("sentiment#champion#1", commit, 4_000_000_000)
    create_tag("sentiment#champion#2", commit, "Assign champion", {}, after=_read().newest_time)
    assert [int(tag.created.timestamp()) for tag in read_tags()[-2:]] == [4_000_000_000, 4_000_000_001]


def test_lightweight_tags_and_tags_of_other_artifacts_are_ignored(repository: Repository) -> None:
    commit = repository.commit("first")
    repository.git("tag", "sentiment@v7.0.0", commit)
    repository.tag("sentiment@v1.0.0-rc1", commit, 1000)
    repository.tag("other@v1.0.0", commit, 1000)
    repository.tag("sentimental@v1.0.0", commit, 1000)
    assert read_tags() == []


def test_message_cannot_add_details(repository: Repository) -> None:
    commit = repository.commit("first")
    details = {"Reason": "two\nlines\n\nAction: rollback # not a comment", "Action": "promote"}
    create_tag("sentiment@v1.0.0", commit, "Register", details, after=0)
    (tag,) = read_tags()
    assert tag.details == {
        "Reason": "two lines Action: rollback # not a comment",
        "Action": "promote",
    }


@pytest.mark.parametrize(
    ("assignments", "champions"),
    [
        ("1 2 3", "1 2 3"),
        ("1 2 3 r2", "1 2"),
        ("1 2 3 r2 r1", "1"),
        ("1 2 3 r2 4", "1 2 4"),
        ("1 2 3 r2 4 r2 r1", "1"),
        ("1 2 1 3 r1", "1 2 1"),
        ("1 2 1 3 r1 r2", "1 2"),
        ("1 2 -2", ""),
        ("1 2 -1", "2"),
        ("1 2 -2 3", "3"),
    ],
)
def test_rollbacks_go_back_one_champion_each(
    repository: Repository, assignments: str, champions: str
) -> None:
    """A number is promoted; `r2` is a rollback to 2; `-2` unassigns the stage."""
    commits = _commits(repository, 4)
    for counter, text in enumerate(assignments.split(), start=1):
        commit = commits[int(text[-1]) - 1]
        mark = "!" if text.startswith("-") else ""
        action = {"r": "rollback", "-": None}.get(text[0], "promote")
        repository.tag(f"sentiment#champion{mark}#{counter}", commit, 2000 + counter, action=action)
    assert _champion_versions() == [f"v{number}.0.0" for number in champions.split()]


@pytest.mark.parametrize(
    ("deregistered", "champions"), [(1, "2"), (2, "1"), (3, "1 2")], ids=["oldest", "restored", "previous"]
)
def test_rollback_counts_if_a_version_is_deregistered_later(
    repository: Repository, deregistered: int, champions: str
) -> None:
    """Champions are 1, 2 and 3, then 2 again; the next rollback must not return to 3."""
    commits = _commits(repository, 4)
    for number in (1, 2, 3):
        repository.tag(f"sentiment#champion#{number}", commits[number - 1], 2000 + number, action="promote")
    repository.tag("sentiment#champion#4", commits[1], 2004, action="rollback", previous="sentiment@v3.0.0")
    repository.tag("sentiment#champion#5", commits[3], 2005, action="promote")
    repository.tag(f"sentiment@v{deregistered}.0.0!", commits[deregistered - 1], 3000)
    assert _champion_versions() == [f"v{number}.0.0" for number in (*champions.split(), 4)]


def test_challenger_is_the_newest_version_that_is_not_the_champion(repository: Repository) -> None:
    commits = _commits(repository, 3)
    for counter, (number, challenger) in enumerate([(3, 2), (1, 3)], start=1):
        repository.tag(f"sentiment#champion#{counter}", commits[number - 1], 2000 + counter)
        found = _read().challenger
        assert found is not None
        assert found.name == f"sentiment@v{challenger}.0.0"


def test_deregistered_version_is_neither_version_nor_champion(repository: Repository) -> None:
    commits = _commits(repository, 2)
    for counter, commit in enumerate(commits, start=1):
        repository.tag(f"sentiment#champion#{counter}", commit, 2000 + counter)
    repository.tag("sentiment@v1.0.0!", commits[0], 3000)
    assert _champion_versions() == ["v2.0.0"]
    assert list(_read().versions) == [commits[1]]
    repository.tag("sentiment@v2.0.0!", commits[1], 3001)
    with pytest.raises(UserError, match="has no registered version; `gto register sentiment"):
        _ = _read().champion


def test_revision_that_does_not_exist_is_named(repository: Repository) -> None:
    repository.commit("first")
    for revision in ("no-such-tag", "HEAD~5", "--all", "", "sentiment@v9.0.0"):
        with pytest.raises(UserError, match="no such git revision"):
            resolve_commit(revision)


def test_outside_a_repository_the_error_of_git_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not a git repository"):
        read_tags()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cannot run git"):
        read_tags()


def test_unknown_author_writes_no_tag(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = repository.commit("first")
    repository.git("config", "--unset", "user.name")
    repository.git("config", "--unset", "user.email")
    repository.git("config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("NAME", "EMAIL"):
        monkeypatch.delenv(f"GIT_COMMITTER_{name}", raising=False)
    monkeypatch.delenv("EMAIL", raising=False)
    with pytest.raises(UserError, match=r"user\.email"):
        create_tag("sentiment@v1.0.0", commit, "Register", {}, after=0)
    assert repository.git("tag") == ""


def test_lost_decision_of_the_champion_is_an_error(repository: Repository) -> None:
    entry = LedgerEntry(
        outcome="promote",
        reason="first champion",
        test="7" * 32,
        champion=None,
        challenger="a1",
        batch=None,
        commit="c1",
        created="2026-11-02T10:00:00+00:00",
        is_look=False,
    )
    commit = repository.commit("model")
    repository.tag("sentiment@v1.0.0", commit, 1000)
    repository.tag("sentiment#champion#1", commit, 1000)
    require_complete([], None)
    require_complete([], _read().champion)  # promoted without a decision
    create_tag("sentiment#champion#2", commit, "Assign", {"Ledger-ID": entry.id}, after=1000)
    require_complete([entry], _read().champion)
    with pytest.raises(UserError, match=f"lacks the decision {entry.id} by which sentiment@v1.0.0 was"):
        require_complete([], _read().champion)
