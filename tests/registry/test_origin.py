"""Clones that lack tags of origin, which must not have another champion than origin has."""

import logging
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.ledger import read_ledger
from sentiment.registry.origin import build_push_command, push_tags, require_complete_tags
from sentiment.registry.state import open_registry
from tests.registry.repositories import Repository, add_origin, clone, make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with two registered versions, of which the second is the champion."""
    repository = make_repository(tmp_path / "repository")
    for number in (1, 2):
        commit = repository.commit(f"model {number}")
        repository.tag(f"sentiment@v{number}.0.0", commit, 1000 + number)
        repository.tag(f"sentiment#champion#{number}", commit, 1000 + number)
    repository.commit("later")
    return repository


@pytest.fixture
def origin(repository: Repository) -> Path:
    return add_origin(repository)


def _missing_error() -> str:
    with pytest.raises(UserError) as caught:
        open_registry()
    assert caught.value.exit_status == 2
    return str(caught.value)


def _run_command_of(error: str, repository: Repository) -> None:
    """Run the git command that an error message quotes."""
    command = error.split("`")[1].replace("'", "").split()
    assert command[0] == "git"
    repository.git(*command[1:])


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (("--no-tags",), "git fetch --tags origin"),
        (("--depth=1",), "git fetch --unshallow --tags origin"),
        (("--depth=1", "--no-tags"), "git fetch --unshallow --tags origin"),
    ],
)
def test_clone_without_tags_names_the_command_that_fetches_them(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], command: str
) -> None:
    cloned = clone(origin, tmp_path / "clone", *options)
    monkeypatch.chdir(cloned.root)
    error = _missing_error()
    assert f"`{command}`" in error
    assert "sentiment@v1.0.0" in error
    _run_command_of(error, cloned)
    champion = open_registry().champion
    assert champion is not None
    assert champion.registration.name == "sentiment@v2.0.0"


def test_clone_that_lacks_the_newest_tag_is_refused(
    repository: Repository, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned = clone(origin, tmp_path / "clone")
    repository.tag("sentiment#champion#3", "HEAD", 2000)
    repository.git("push", "-q", "origin", "--tags")
    monkeypatch.chdir(cloned.root)
    assert "sentiment#champion#3: registered at origin, missing in this clone" in _missing_error()


def test_moved_tag_is_refused_until_it_is_fetched(
    repository: Repository, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned = clone(origin, tmp_path / "clone")
    cloned.git("tag", "--delete", "sentiment@v2.0.0")
    cloned.tag("sentiment@v2.0.0", "HEAD", 3000)
    monkeypatch.chdir(cloned.root)
    error = _missing_error()
    assert "sentiment@v2.0.0: not the same tag here and at origin" in error
    _run_command_of(error, cloned)
    assert cloned.git("rev-parse", "sentiment@v2.0.0^{}") == repository.git(
        "rev-parse", "sentiment@v2.0.0^{}"
    )
    open_registry()


def test_tags_that_are_not_pushed_yet_count(
    repository: Repository, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.tag("sentiment@v3.0.0", "HEAD", 2000)
    repository.tag("sentiment#champion#3", "HEAD", 2000)
    monkeypatch.chdir(repository.root)
    champion = open_registry().champion
    assert champion is not None
    assert champion.registration.name == "sentiment@v3.0.0"


@pytest.mark.parametrize("address", [None, "/no/such/repository", "https://127.0.0.1:1/repository.git"])
def test_without_a_reachable_origin_the_local_tags_count_with_a_warning(
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str | None,
) -> None:
    if address:
        repository.git("remote", "add", "origin", address)
    monkeypatch.chdir(repository.root)
    champion = open_registry().champion
    assert champion is not None
    assert champion.registration.name == "sentiment@v2.0.0"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert ("cannot read the tags of origin" if address else "no remote origin") in record.message


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/x.git?token=SECRET",
        "http://SECRET@127.0.0.1:1/x.git",
        "http://ada:SECRET@127.0.0.1:1/x.git#SECRET",
        "http://ada:p/SECRET@127.0.0.1:1/x.git?SECRET",
    ],
)
def test_warnings_have_no_token_of_the_address(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    repository.git("remote", "add", "origin", address)
    monkeypatch.chdir(repository.root)
    open_registry()
    assert read_ledger() == []
    assert [record.message.split(" of origin")[0] for record in caplog.records] == [
        "cannot read the tags",
        "cannot fetch the ledger",
    ]
    assert "SECRET" not in caplog.text
    with pytest.raises(UserError) as caught:
        push_tags(["sentiment@v1.0.0"])
    assert "SECRET" not in str(caught.value)


def test_tags_are_pushed_all_or_none(
    repository: Repository, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clone(origin, tmp_path / "clone")
    names = ["sentiment@v3.0.0", "sentiment#champion#3"]
    other.tag(names[1], "HEAD", 2000)
    other.git(*build_push_command(names[1:])[1:])
    for name in names:
        repository.tag(name, "HEAD", 2001)
    monkeypatch.chdir(repository.root)
    with pytest.raises(UserError, match=r"are not at origin(.|\n)*To withdraw them: git tag --delete"):
        push_tags(names)
    assert Repository(origin).git("tag", "--list", names[0]) == ""
    repository.git("tag", "--delete", *names)
    with pytest.raises(UserError, match="missing in this clone"):
        require_complete_tags()
