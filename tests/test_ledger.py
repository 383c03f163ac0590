"""The ledger in real repositories: by this package, by the script that needs git only, by both at once."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.ledger import (
    LedgerEntry,
    append,
    count_looks,
    find_promotion,
    push_ledger,
    read_ledger,
    unite,
)
from tests.project import ROOT
from tests.registry.repositories import Repository, add_origin, clone, make_repository

SCRIPT = ROOT / ".github" / "scripts" / "append-ledger.sh"


def _entry(number: int, **changes: object) -> LedgerEntry:
    entry = LedgerEntry(
        outcome="not_better",
        reason='AUC "é" \\ lower',
        test="7" * 32,
        champion=f"{1:032x}.dir",
        challenger=f"{number:032x}.dir",
        batch=None,
        commit="c" * 40,
        created=f"2026-11-{number:02d}T00:00:00+00:00",
        is_look=True,
        details={"id": "0" * 32, "outcome": "promote"},
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def _edit(number: int, **changes: object) -> str:
    """Return a line with other values, and an id that fits its models."""
    return json.dumps({**_entry(number).to_dict(), **changes})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with origin, in which the test runs."""
    repository = make_repository(tmp_path / "repository")
    repository.commit("first")
    add_origin(repository)
    monkeypatch.chdir(repository.root)
    return repository


def _origin(repository: Repository) -> Repository:
    return Repository(Path(repository.git("remote", "get-url", "origin")))


def _run_script(repository: Repository, *entries: LedgerEntry) -> subprocess.CompletedProcess[str]:
    file = _write(repository.root.with_name(f"{repository.root.name}.jsonl"), *entries)
    return subprocess.run(
        [SCRIPT, file], cwd=repository.root, capture_output=True, text=True, check=False, timeout=300
    )


def _published(repository: Repository) -> list[LedgerEntry]:
    lines = _origin(repository).git("cat-file", "blob", "ledger:decisions.jsonl").splitlines()
    return [LedgerEntry.from_json(line) for line in lines]


def test_line_starts_with_id_and_outcome_and_is_read_as_written() -> None:
    entry = _entry(2, batch="b" * 32, reason="two\nlines", verdict="worse")
    line = entry.to_json()
    assert line.startswith(f'{{"id": "{entry.id}", "outcome": "not_better", "test": "777')
    assert "\n" not in line
    assert LedgerEntry.from_json(line) == entry
    assert entry.reason == "two lines"


def test_fields_of_a_later_version_are_ignored_and_retained() -> None:
    line = json.dumps({**json.loads(_entry(2).to_json()), "weather": "fine"})
    assert LedgerEntry.from_json(line) == _entry(2)
    assert unite([line], [_entry(2).to_json(), _entry(3).to_json()]) == [line, _entry(3).to_json()]


def test_looks_and_promotions_are_found_by_their_models() -> None:
    promotion = _entry(5, outcome="promote")
    entries = [_entry(3), _entry(4, is_look=False), promotion, _entry(6, test="8" * 32)]
    assert count_looks(entries, "7" * 32) == 2
    assert find_promotion(entries, promotion.champion, promotion.challenger or "") == promotion
    later = replace(promotion, outcome="not_better", test="8" * 32, created="2026-11-28T00:00:00+00:00")
    assert find_promotion([*entries, later], promotion.champion, promotion.challenger or "") is None
    assert find_promotion([later, promotion], promotion.champion, promotion.challenger or "") == promotion
    assert find_promotion(entries, None, promotion.challenger or "") is None
    assert find_promotion(entries, promotion.champion, f"{3:032x}.dir") is None


def test_append_changes_the_branch_alone_and_writes_a_key_once(repository: Repository) -> None:
    (repository.root / "file").write_text("changed")
    (repository.root / "untracked").write_text("new")
    repository.git("add", "untracked")
    before = repository.git("status", "--porcelain"), repository.git("rev-parse", "HEAD")
    assert read_ledger() == []
    assert append(_entry(2))
    assert append(_entry(3))
    assert not append(_entry(2, outcome="promote"))
    assert read_ledger() == [_entry(2), _entry(3)]
    assert before == (repository.git("status", "--porcelain"), repository.git("rev-parse", "HEAD"))
    assert repository.git("rev-list", "--count", "ledger") == "2"


def test_many_that_append_at_once_lose_and_double_no_line(repository: Repository) -> None:
    """Ten decisions by ten threads, each of them twice."""
    entries = [_entry(number) for number in range(1, 11)] * 2
    with ThreadPoolExecutor(10) as pool:
        written = list(pool.map(append, entries))
    assert sum(written) == 10
    assert read_ledger() == entries[:10]


def test_appends_that_are_killed_and_repeated_lose_and_double_no_line(
    repository: Repository, tmp_path: Path
) -> None:
    entries = [_entry(number) for number in range(1, 31)]
    file = _write(tmp_path / "entries.jsonl", *entries)
    code = (
        "from pathlib import Path; from sentiment.ledger import LedgerEntry, append\n"
        "print('ready', flush=True)\n"
        f"for line in Path({str(file)!r}).read_text().splitlines(): append(LedgerEntry.from_json(line))"
    )
    for milliseconds in (1, 40, 90, 150, 230, 320):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(milliseconds / 1000)
            process.kill()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    assert read_ledger() == entries
    assert repository.git("rev-list", "--count", "ledger") == "30"


def test_lock_that_a_killed_git_left_is_named(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentiment.ledger.branch.LOCAL_ATTEMPTS", 2)
    lock = repository.root / ".git" / "refs" / "heads" / "ledger.lock"
    lock.touch()
    with pytest.raises(UserError, match=r"cannot append to the branch ledger: (.|\n)*ledger\.lock"):
        append(_entry(2))
    lock.unlink()
    assert append(_entry(2))


def test_ledgers_of_two_clones_are_united_by_push(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(_entry(2))
    push_ledger()
    other = clone(_origin(repository).root, tmp_path / "other", "--depth=1", "--single-branch")
    append(_entry(4))
    push_ledger()
    monkeypatch.chdir(other.root)
    assert read_ledger() == [_entry(2), _entry(4)], "a shallow clone of one branch has the whole ledger"
    append(_entry(3))
    assert len(read_ledger()) == 3
    monkeypatch.chdir(repository.root)
    append(_entry(5))
    push_ledger()
    monkeypatch.chdir(other.root)
    push_ledger()
    push_ledger()
    assert sorted(entry.created for entry in _published(repository)) == [
        _entry(number).created for number in (2, 3, 4, 5)
    ]


def test_push_restores_a_branch_that_was_deleted_at_origin(repository: Repository, tmp_path: Path) -> None:
    append(_entry(2))
    push_ledger()
    other = clone(_origin(repository).root, tmp_path / "other")
    _origin(repository).git("branch", "-D", "ledger")
    push_ledger()
    assert _published(repository) == [_entry(2)]
    _origin(repository).git("branch", "-D", "ledger")
    with chdir(other.root):  # which has fetched the branch and has no local one
        push_ledger()
        assert read_ledger() == [_entry(2)]
    assert _published(repository) == [_entry(2)]


def test_refused_push_retains_the_decisions(repository: Repository) -> None:
    hook = _origin(repository).root / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    hook.chmod(0o755)
    append(_entry(2))
    with pytest.raises(UserError, match=r"could not be pushed: (.|\n)*no space(.|\n)*has the decisions"):
        push_ledger()
    assert read_ledger() == [_entry(2)]
    done = _run_script(repository, _entry(3))
    assert done.returncode == 1
    assert "no space" in done.stderr
    assert "the ledger was not pushed in 5 attempts" in done.stderr


def test_unreachable_origin_is_a_warning(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    append(_entry(2))
    repository.git("remote", "set-url", "origin", "/no/such/repository")
    assert read_ledger() == [_entry(2)]
    assert "cannot fetch the ledger of origin" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[1]", "line 2: not a decision"),
        ('{"outcome": "promote"}', "line 2: not a decision: .*missing"),
        (_edit(3, created="yesterday"), "line 2: Invalid isoformat"),
        (_edit(3, created="2026-11-03T00:00:00"), "line 2: not a decision: created has no time zone"),
        (_edit(3, created=20261103), "line 2: not a decision: created is 20261103"),
        (_edit(3, is_look="yes"), "line 2: not a decision: is_look is 'yes'"),
        (_edit(3, details=[1]), r"line 2: not a decision: details is \[1\]"),
        (_edit(3, outcome=["promote"]), "line 2: .*not an outcome"),
        (_edit(3, reason="\ud800"), "line 2: .*surrogates not allowed"),
        ("[" * 100_000, "line 2: not a decision: nested too deeply"),
        (_entry(3).to_json().replace("not_better", "postponed", 1), "line 2: postponed: not an outcome"),
        (_entry(3).to_json().replace(f"{3:032x}", f"{4:032x}", 1), "line 2: its id .* is not that of"),
    ],
)
def test_unreadable_line_is_named(repository: Repository, line: str, message: str) -> None:
    (repository.root / "decisions.jsonl").write_text(f"{_entry(2).to_json()}\n{line}\n")
    repository.git("add", "decisions.jsonl")
    repository.git("commit", "-qm", "edited")
    repository.git("branch", "ledger")
    with pytest.raises(UserError, match=f"decisions.jsonl of the branch ledger, {message}"):
        read_ledger()


def test_branch_that_is_no_ledger_is_not_overwritten(repository: Repository) -> None:
    repository.git("branch", "ledger")
    with pytest.raises(UserError, match=r"has no file decisions\.jsonl: another branch has its name"):
        append(_entry(2))
    repository.git("push", "-q", "origin", "ledger")
    assert "the name is taken by another branch" in _run_script(repository, _entry(2)).stderr


def test_script_unites_by_id_and_needs_no_author(repository: Repository, tmp_path: Path) -> None:
    runner = clone(_origin(repository).root, tmp_path / "runner", "--depth=1")
    for name in ("user.name", "user.email"):
        runner.git("config", "--unset", name)
    runner.git("config", "user.useConfigOnly", "true")
    assert "pushed 2 decision(s)" in _run_script(runner, _entry(2), _entry(3)).stdout
    done = _run_script(runner, _entry(3, outcome="promote"), _entry(4))
    assert "pushed 1 decision(s)" in done.stdout
    assert "has these decisions already" in _run_script(runner, _entry(4)).stdout
    assert _published(repository) == read_ledger() == [_entry(2), _entry(3), _entry(4)]
    assert runner.git("status", "--porcelain") == ""


def test_script_refuses_what_is_no_decision(repository: Repository) -> None:
    file = repository.root / "wrong"
    file.write_text(f'{_entry(2).to_json()}\n{{"outcome": "promote"}}\n')
    done = subprocess.run(
        [SCRIPT, file], cwd=repository.root, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "line 2 is not a decision" in done.stderr
    assert _origin(repository).git("branch", "--list", "ledger") == ""


@pytest.mark.parametrize("second", ["script", "package"])
def test_two_that_push_at_once_lose_no_line(repository: Repository, tmp_path: Path, second: str) -> None:
    """A hook lets a second repository push when the first one is about to, which then pushes again."""
    other = clone(_origin(repository).root, tmp_path / "other")
    append(_entry(3))
    commands = {
        "script": f"{SCRIPT} {_write(tmp_path / 'second.jsonl', _entry(3))}",
        "package": f"{sys.executable} -c 'from sentiment.ledger import push_ledger; push_ledger()'",
    }
    hook = other.root / ".git" / "hooks" / "pre-push"
    hook.write_text(
        f"#!/bin/sh\nunset $(git rev-parse --local-env-vars)\n"
        f"mkdir {tmp_path}/once 2>/dev/null || exit 0\ncd {repository.root} && {commands[second]}\n"
    )
    hook.chmod(0o755)
    done = _run_script(other, _entry(2))
    assert "rejected" in done.stderr
    assert "pushed 1 decision(s)" in done.stdout
    assert read_ledger() == [_entry(2), _entry(3)]
    assert len(_published(repository)) == 2


def _write(file: Path, *entries: LedgerEntry) -> Path:
    file.write_text("".join(f"{entry.to_json()}\n" for entry in entries))
    return file
