import pytest

from sentiment import progress


def test_log_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track("abcde", 5, "letters")) == list("abcde")
    assert capsys.readouterr().err.splitlines() == ["letters: 1 of 5", "letters: 3 of 5"]


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress.track("abcde", 5, "letters")) == list("abcde")
    assert "letters: " in capsys.readouterr().err


def test_items_may_count_for_more_than_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(["ab", "c"], 3, "letters", size=len)) == ["ab", "c"]
    assert capsys.readouterr().err.splitlines() == ["letters: 0 of 3", "letters: 2 of 3"]
