import shutil
from pathlib import Path

import pytest

from tests.project import Project
from tests.registry.registered_project import RegisteredProject, build


@pytest.fixture(scope="session")
def two_models(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> RegisteredProject:
    """The project with its models; `registered` is a copy of it."""
    root = tmp_path_factory.mktemp("registry") / "project"
    shutil.copytree(reproduced.root, root, ignore=shutil.ignore_patterns("mlruns"))
    return build(Project(root))


@pytest.fixture
def registered(
    two_models: RegisteredProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RegisteredProject:
    """A project with two models, in which the test runs; its MLflow store is new."""
    root = tmp_path / "project"
    shutil.copytree(two_models.root, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return RegisteredProject(Project(root), two_models.untrained, two_models.trained, two_models.violating)
