import os
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pytest

# Torch's threads then wait as in a stage; else tests beside other work are ten times slower.
import stages  # noqa: F401
from sentiment.data.imdb import read_package
from sentiment.data.parquet import batches_of, limited
from sentiment.text import normalized
from tests.project import Project, clone

# What the tests train is small, and they run on all cores: a second thread each would only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job in the background has Ctrl-C ignored, and so would all that it starts: no test could interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def reviews() -> pa.Table:
    """Two hundred real reviews, half of them positive, in the source's order; no two are equal."""
    whole = read_package()
    first_rows = {normalized(text): row for row, text in reversed(list(enumerate(whole["text"].to_pylist())))}
    distinct = whole.take(sorted(first_rows.values()))
    taken = pa.Table.from_batches(limited(lambda: batches_of(distinct), 200, seed=42))
    texts = [normalized(text) for text in taken["text"].to_pylist()]
    return pa.table({"text": texts, "label": taken["label"]})


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project after one `dvc repro`, committed. Shared: tests that change it take a copy."""
    project = clone(tmp_path_factory.mktemp("reproduced"))
    project.run("dvc", "repro")
    project.commit("first results")
    return project


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project, to be changed at will; its runs stay with the original."""
    shutil.copytree(reproduced.root, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns"))
    return Project(tmp_path / "project")
