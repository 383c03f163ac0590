import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sentiment.retraining import notification
from sentiment.retraining.notification import MAX_LINES, notify

SECRET = "hooks-secret"


class _Hook(http.server.BaseHTTPRequestHandler):
    status = 200
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hook]]:
    """A webhook whose address is in the environment."""
    handler = type("Hook", (_Hook,), {"bodies": []})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("RETRAIN_NOTIFY_URL", f"http://127.0.0.1:{server.server_address[1]}/{SECRET}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_outcome_and_first_lines_are_posted(hook: type[_Hook], caplog: pytest.LogCaptureFixture) -> None:
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


def test_failure_is_a_warning_without_the_address(
    hook: type[_Hook], caplog: pytest.LogCaptureFixture
) -> None:
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
