import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project
from tests.retraining.retraining_project import RetrainingProject, promote_first

SECRET = "hooks-secret"


@pytest.fixture(scope="session")
def first_promoted(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> RetrainingProject:
    """The small project with a first champion. `retraining` is a copy of it."""
    return promote_first(reproduced, tmp_path_factory.mktemp("retraining") / "project")


@pytest.fixture
def retraining(first_promoted: RetrainingProject, tmp_path: Path) -> RetrainingProject:
    """A project with a first champion that a test may change."""
    return first_promoted.copy(tmp_path / "project")


class Hook(http.server.BaseHTTPRequestHandler):
    """Retains what is posted to it."""

    status = 200
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hook]]:
    """A webhook whose address is in the environment."""
    handler = type("Hook", (Hook,), {"bodies": []})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("RETRAIN_NOTIFY_URL", f"http://127.0.0.1:{server.server_address[1]}/{SECRET}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()
