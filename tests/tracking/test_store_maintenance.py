import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import pytest
from mlflow import MlflowClient

from sentiment.errors import UserError
from sentiment.tracking.mlflow_store import open_store
from sentiment.tracking.store_maintenance import back_up, move, upgrade

DATABASE = Path("mlruns/mlflow.db")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run that has an artifact."""
    root = tmp_path_factory.mktemp("store") / "project"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        _enter(root, patch)
        store = open_store()
        run = store.client.create_run(store.experiment_id)
        store.client.log_text(run.info.run_id, "content", "notes.txt")
        store.client.set_terminated(run.info.run_id)
    return root


def _enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(root)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        patch.delenv(name, raising=False)


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository in another folder, in which the test runs."""
    root = tmp_path / "moved here"
    shutil.copytree(made, root)
    _enter(root, monkeypatch)
    return root


def _query(path: Path, query: str) -> Sequence[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_backup_is_a_database_with_the_runs(root: Path, tmp_path: Path) -> None:
    back_up(tmp_path / "backups/mlflow.db")
    query = "SELECT run_uuid FROM runs"
    assert _query(tmp_path / "backups/mlflow.db", query) == _query(root / DATABASE, query)
    for target, message in (
        (Path(), "is a folder"),
        (tmp_path / "backups", "is a folder"),
        (DATABASE, "itself"),
    ):
        with pytest.raises(UserError, match=message):
            back_up(Path(target))
    assert (tmp_path / "backups" / "mlflow.db").is_file()
    (root / DATABASE).unlink()
    with pytest.raises(UserError, match="there is no database"):
        back_up(tmp_path / "backups/other.db")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["mlflow.db"]


def test_artifacts_of_a_moved_repository_are_found(root: Path) -> None:
    assert move() > 0
    client = MlflowClient(f"sqlite:///{root / DATABASE}")
    (run,) = client.search_runs([client.get_experiment_by_name("sentiment").experiment_id])  # type: ignore[union-attr]
    folder = Path(unquote(urlparse(run.info.artifact_uri).path))
    assert folder.is_relative_to(root)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["notes.txt"]
    assert move() == 0


def test_current_store_is_not_upgraded(root: Path) -> None:
    before = (root / DATABASE).read_bytes()
    assert upgrade() is None
    assert (root / DATABASE).read_bytes() == before
    assert not list((root / "mlruns").glob("*upgrade*"))


def test_older_store_is_upgraded_and_backed_up(root: Path) -> None:
    from alembic import command  # deptry: ignore[DEP003]  # MLflow has no command that downgrades
    from mlflow.store.db.utils import _get_alembic_config

    config = _get_alembic_config(f"sqlite:///{root / DATABASE}")  # type: ignore[no-untyped-call]
    command.downgrade(config, "-1")
    (before,) = _query(root / DATABASE, "SELECT version_num FROM alembic_version")
    backup = upgrade()
    assert backup == root / f"{DATABASE}.{before[0]}"
    assert _query(backup, "SELECT version_num FROM alembic_version") == [before]
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert open_store().client.search_runs([open_store().experiment_id])


def test_upgrade_that_fails_leaves_the_database(root: Path) -> None:
    with closing(sqlite3.connect(root / DATABASE)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of the future'")
    before = (root / DATABASE).read_bytes()
    with pytest.raises(UserError, match="the database is unchanged"):
        upgrade()
    assert (root / DATABASE).read_bytes() == before
