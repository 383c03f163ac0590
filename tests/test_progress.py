import pytest

from sentiment import logs as progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six seconds pass between one look at the clock and the next."""
    times = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


@pytest.mark.usefixtures("clock")
def test_log_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track("abcde", 5, "letters")) == list("abcde")
    assert capsys.readouterr().err.splitlines() == [
        "letters: 40% (2 of 5, 18 s left)",
        "letters: 80% (4 of 5, 6 s left)",
    ]


@pytest.mark.usefixtures("clock")
def test_log_gets_bytes_with_speed_of_this_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counting("a.tar.gz", 84_000_000, unit="bytes", done=40_000_000) as advance:
        advance(1_000_000)
        advance(1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "a.tar.gz: 50% (42.0 MB of 84.0 MB, 0.2 MB/s, 4 min left)"
    ]


@pytest.mark.usefixtures("clock")
def test_log_without_a_total_gets_amount_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counting("a.tar.gz", None, unit="bytes") as advance:
        advance(6_000_000)
        advance(6_000_000)
    assert capsys.readouterr().err.splitlines() == ["a.tar.gz: 12.0 MB, 1.0 MB/s"]


@pytest.mark.parametrize("unit", ["items", "bytes"])
def test_terminal_gets_a_bar(
    unit: progress.Unit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.counting("letters", 5, unit=unit) as advance:
        advance(5)
    assert "letters: " in capsys.readouterr().err


def test_items_may_count_for_more_than_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(["ab", "c"], 3, "letters", size=len)) == ["ab", "c"]
    assert capsys.readouterr().err.splitlines() == [
        "letters: 67% (2 of 3, 6 s left)",
        "letters: 100% (3 of 3, 0 s left)",
    ]


def test_silenced_process_shows_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_silent", False)
    progress.silence()
    progress.say("a line")
    assert list(progress.track("abcde", 5, "letters")) == list("abcde")
    assert capfd.readouterr().err == ""
