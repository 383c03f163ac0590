import socket

import pytest

from sentiment.retraining import notification
from sentiment.retraining.notification import MAX_LINES, notify
from tests.retraining.conftest import SECRET, Hook


def test_outcome_and_first_lines_are_posted(hook: type[Hook], caplog: pytest.LogCaptureFixture) -> None:
    notify("not_better", "the AUC is lower", "\n".join(f"line {number}" for number in range(100)))
    (content,) = hook.bodies
    assert content["outcome"] == "not_better"
    assert content["text"] == "Retraining: not_better: the AUC is lower"
    assert content["report"].splitlines() == [f"line {number}" for number in range(MAX_LINES)]
    assert not caplog.records


def test_without_an_address_nothing_is_posted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RETRAIN_NOTIFY_URL", raising=False)
    notify("promote", "better", "")
    assert not caplog.records


def test_failure_is_a_warning_without_the_address(hook: type[Hook], caplog: pytest.LogCaptureFixture) -> None:
    hook.status = 500
    notify("promote", "better", "")
    assert "answered with status 500" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/", "file:///etc/", "http://[/", "http:///", "https://no host/"]
)
def test_invalid_address_is_a_warning(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETRAIN_NOTIFY_URL", address + SECRET)
    notify("promote", "better", "")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert SECRET not in caplog.text


def test_silent_address_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notification, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("RETRAIN_NOTIFY_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}")
        notify("promote", "better", "")
    assert "RETRAIN_NOTIFY_URL" in caplog.text
    assert SECRET not in caplog.text
