"""The mirror in a tracking server on PostgreSQL, which dies and loses everything in between."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from mlflow import MlflowClient

from bench.tracking_server import PASSWORD as SERVER_PASSWORD
from bench.tracking_server import TrackingServer, tracking_server
from tests.registry.registered_project import RegisteredProject
from tests.tuning.postgres import PASSWORD, USER, postgres


def _address(port: int, database: str) -> str:
    return f"postgresql+psycopg://{USER}:{quote(PASSWORD)}@127.0.0.1:{port}/{database}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    with postgres() as port:
        with psycopg.connect(
            host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            for name in ("first", "second"):
                connection.execute(f"CREATE DATABASE {name}")
        with tracking_server(tmp_path / "server", tmp_path / "log", _address(port, "first")) as server:
            yield server


def _lose_everything(server: TrackingServer) -> None:
    """Start the server again with an empty database and without artifacts."""
    assert server.database is not None
    server.kill()
    server.database = server.database.replace("/first", "/second")
    shutil.rmtree(server.folder)
    server.folder.mkdir()


def _read_mirror(server: TrackingServer) -> tuple[dict[str, str], dict[str, str]]:
    """Return the git tag by alias, and the commit by git tag."""
    client = MlflowClient(server.address)
    versions = client.search_model_versions("name='sentiment'")
    tags = {int(version.version): version.tags["git.tag"] for version in versions}
    aliases = client.get_registered_model("sentiment").aliases
    for version in versions:  # with its model
        files = client.list_logged_model_artifacts(version.tags["logged_model"])
        assert "MLmodel" in {file.path for file in files}
    return (
        {alias: tags[int(number)] for alias, number in aliases.items()},
        {version.tags["git.tag"]: version.tags["git.commit"] for version in versions},
    )


@pytest.mark.timeout(900)
def test_promotions_and_rollbacks_reach_a_server_that_lost_its_store(
    registered: RegisteredProject, server: TrackingServer
) -> None:
    environment = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    outputs = []

    def run(*arguments: str) -> str:
        done = registered.project.run("sentiment", *arguments, **environment)
        outputs.append(done.stdout + done.stderr)
        return done.stdout

    run("promote", registered.untrained, "--first")
    commits = {"sentiment@v1.0.0": registered.untrained}
    assert _read_mirror(server) == ({"champion": "sentiment@v1.0.0"}, commits)

    _lose_everything(server)
    run("promote", registered.trained)
    assert "Cannot reach the MLflow tracking store" in outputs[-1]
    server.start()
    run("registry", "sync")
    commits["sentiment@v2.0.0"] = registered.trained
    assert _read_mirror(server) == (
        {"champion": "sentiment@v2.0.0", "challenger": "sentiment@v1.0.0"},
        commits,
    )

    run("rollback", "--reason", "too slow")
    assert _read_mirror(server) == (
        {"champion": "sentiment@v1.0.0", "challenger": "sentiment@v2.0.0"},
        commits,
    )
    assert run("registry", "sync") == "nothing to change\n"
    assert "sentiment@v1.0.0 has been the champion" in run("champion")
    assert not any(SERVER_PASSWORD in output for output in outputs)
