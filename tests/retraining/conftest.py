from pathlib import Path

import pytest

from tests.project import Project
from tests.retraining.retraining_project import RetrainingProject, promote_first


@pytest.fixture(scope="session")
def first_promoted(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> RetrainingProject:
    """The small project with a first champion. `retraining` is a copy of it."""
    return promote_first(reproduced, tmp_path_factory.mktemp("retraining") / "project")


@pytest.fixture
def retraining(first_promoted: RetrainingProject, tmp_path: Path) -> RetrainingProject:
    """A project with a first champion that a test may change."""
    return first_promoted.copy(tmp_path / "project")
