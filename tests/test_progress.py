"""Progress and log records on standard error."""

import logging
from collections.abc import Iterable, Iterator

import pytest

from sentiment import logs
from sentiment.errors import UserError


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def ticking(self, items: Iterable[str], seconds: float) -> Iterator[str]:
        """Yield items, with that much time between one and the next."""
        for item in items:
            yield item
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", lambda: clock.now)
    return clock


def test_progress_without_a_terminal_is_logged_every_ten_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in clock.ticking(logs.progress("abcde", 5, "letters"), 6):
        pass
    assert caplog.messages == [
        "letters: 40% | 2/5 [00:12<00:18,  6.00s/it]",
        "letters: 80% | 4/5 [00:24<00:06,  6.00s/it]",
    ]


def test_logged_speed_leaves_out_what_an_earlier_run_did(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with logs.progress_bar("a.tar.gz", 84_000_000, unit="bytes", done=40_000_000) as advance:
        for _ in range(2):
            clock.now += 6
            advance(1_000_000)
    assert caplog.messages == ["a.tar.gz: 50% | 42.0M/84.0M [00:12<04:12, 167kB/s]"]


def test_progress_without_a_total_logs_amount_and_speed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with logs.progress_bar("a.tar.gz", None, unit="bytes") as advance:
        for _ in range(2):
            clock.now += 6
            advance(6_000_000)
    assert caplog.messages == ["a.tar.gz: 12.0MB [00:12, 1.00MB/s]"]


def test_short_progress_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert list(logs.progress("abc", 3, "letters")) == list("abc")
    assert caplog.messages == []


@pytest.mark.parametrize("unit", ["items", "bytes"])
def test_terminal_gets_a_bar(
    unit: logs.Unit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with logs.progress_bar("letters", 5, unit=unit) as advance:
        advance(5)
    assert "letters: " in capsys.readouterr().err


def test_items_may_count_for_more_than_one(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in clock.ticking(logs.progress(["ab", "c"], 3, "letters", size=len), 12):
        pass
    assert [message.split(" [")[0] for message in caplog.messages] == [
        "letters: 67% | 2/3",
        "letters: 100% | 3/3",
    ]


def test_silenced_process_shows_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_silent", False)
    try:
        logs.configure_logging()
        logs.silence()
        logging.getLogger("sentiment.training").error("a line")
        assert list(logs.progress("abcde", 5, "letters")) == list("abcde")
    finally:
        logging.disable(logging.NOTSET)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("level", "shown"), [("debug", 3), ("", 2), ("WARNING", 1)])
def test_log_level_sets_what_is_shown(
    level: str, shown: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", level)
    monkeypatch.delenv("CI", raising=False)
    logs.configure_logging()
    logger = logging.getLogger("sentiment.data.build")
    logger.debug("row 1")
    logger.info("two rows")
    logger.warning("no rows")
    assert capsys.readouterr().err.splitlines() == ["row 1", "two rows", "warning: no rows"][-shown:]


def test_lines_have_time_stamps_in_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "true")
    logs.configure_logging()
    logging.getLogger("sentiment").info("two rows")
    assert capsys.readouterr().err[:2] == "20"


def test_invalid_log_level_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(UserError, match=r"LOG_LEVEL: Input should be 'DEBUG', 'INFO'"):
        logs.configure_logging()


def test_line_during_progress_without_a_terminal_is_logged_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    logs.configure_logging()
    with logs.progress_bar("letters", 5) as advance:
        clock.now += 12
        advance(2)
        logging.getLogger("sentiment").info("trying again")
    assert [line.split("|")[0] for line in capsys.readouterr().err.splitlines()] == [
        "letters: 40% ",
        "trying again",
    ]
