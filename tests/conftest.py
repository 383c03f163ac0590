import logging
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from filelock import FileLock

# Torch's threads then wait as in a stage; else tests beside other work are ten times slower.
import stages  # noqa: F401
from sentiment.data.imdb import load_package_reviews
from sentiment.data.parquet import sample_reviews, to_batches
from sentiment.logs import LOGGERS
from sentiment.text import normalize_text
from tests.project import Project, clone
from tests.registry.registered_project import RegisteredProject, build

# What the tests train is small, and they run on all cores: a second thread each would only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job in the background has Ctrl-C ignored, and so would all that it starts: no test could interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = (
    "tests/bench/test_own.py",
    "tests/bench/test_peers.py",
    "tests/data/test_duplicate_keys.py",
    "tests/data/test_invalid_sources.py",
    "tests/inputs/test_lines.py",
    "tests/model/test_devices.py",
    "tests/pipeline/",
    "tests/registry/",
    "tests/test_ignored.py",
    "tests/test_ledger.py",
    "tests/test_predict.py",
    "tests/test_resampling.py",
    "tests/tracking/",
    "tests/training/test_checkpoints.py",
    "tests/training/test_intermediate_evaluations.py",
    "tests/training/test_loop.py",
    "tests/training/test_ranks.py",
    "tests/training/test_self_training.py",
)
"""Folders and files of which every test is marked `slow`."""

INTEGRATION = (
    "tests/cluster/",
    "tests/pipeline/test_experiments.py",
    "tests/pipeline/test_incoming.py",
    "tests/pipeline/test_ranks.py",
    "tests/pipeline/test_relock.py",
    "tests/pipeline/test_removal.py",
    "tests/pipeline/test_reproduce.py",
    "tests/pipeline/test_resume.py",
    "tests/pipeline/test_retention.py",
    "tests/pipeline/test_sources.py",
    "tests/pipeline/test_tune.py",
    "tests/pipeline/test_tune_resume.py",
    "tests/pipeline/test_verify.py",
    "tests/registry/test_mirror.py",
    "tests/registry/test_promotion.py",
    "tests/registry/test_records.py",
    "tests/registry/test_server.py",
    "tests/repair/",
    "tests/retraining/test_cycle.py",
    "tests/retraining/test_new_model.py",
    "tests/tracking/test_outage.py",
    "tests/tracking/test_provenance.py",
    "tests/tracking/test_serving.py",
    "tests/tuning/test_dashboard.py",
    "tests/tuning/test_deletion.py",
    "tests/workflows/test_cycles.py",
    "tests/workflows/test_faults.py",
)
"""Folders and files of which every test is marked `integration`."""

STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
"""Audit events of Python that start a process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their file, so that `make test-fast` and `make test` leave them out."""
    for item in items:
        if item.nodeid.startswith(INTEGRATION):
            item.add_marker(pytest.mark.integration)
        elif item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


class _Started:
    """Records the processes that the running test starts; an audit hook cannot be removed again."""

    def __init__(self) -> None:
        self.commands: list[str] | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.commands is not None and event in STARTS:
            self.commands.append(f"{event} {arguments[:1]}")


_started = _Started()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Record from here on which processes a test of the fast tier starts, its fixtures included."""
    fast = not any(item.get_closest_marker(name) for name in ("slow", "integration"))
    _started.commands = [] if fast else None
    yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that starts a process and is not marked `slow` or `integration`."""
    yield
    commands, _started.commands = _started.commands, None
    assert not commands, f"mark {item.nodeid} `slow`: it starts {commands}"


@pytest.fixture(autouse=True)
def captured_loggers() -> Iterator[None]:
    """Let caplog get the project's records from INFO up, also after a test that configured logging."""

    def reset() -> None:
        for logger in map(logging.getLogger, LOGGERS):
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.INFO)

    reset()
    yield
    reset()


@pytest.fixture(scope="session")
def reviews() -> pa.Table:
    """Two hundred real reviews, half of them positive, in the source's order; no two are equal."""
    whole = load_package_reviews()
    first_rows = {
        normalize_text(text): row for row, text in reversed(list(enumerate(whole["text"].to_pylist())))
    }
    distinct = whole.take(sorted(first_rows.values()))
    taken = pa.Table.from_batches(sample_reviews(lambda: to_batches(distinct), 200, seed=42))
    texts = [normalize_text(text) for text in taken["text"].to_pylist()]
    return pa.table({"text": texts, "label": taken["label"]})


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project after one `dvc repro`, committed. Tests that change it take `project`.

    The first worker of pytest-xdist builds it, and each takes a copy, whose MLflow artifacts are those of the
    original.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if worker else base) / "reproduced"
    finished = shared.with_suffix(".finished")
    with FileLock(shared.with_suffix(".lock")):
        if not finished.exists():
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir()
            project = clone(shared)
            project.run("dvc", "repro")
            project.commit("first results")
            finished.touch()
    if worker is None:
        return Project(shared)
    return Project(shutil.copytree(shared, base / "reproduced"))


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project that a test may change; its MLflow runs stay with the original."""
    shutil.copytree(reproduced.root, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns"))
    return Project(tmp_path / "project")


@pytest.fixture
def before(tokenized: Project, tmp_path: Path) -> Project:
    """A copy of `tokenized`, which the test's module defines: a project before its first training."""
    shutil.copytree(tokenized.root, tmp_path / "project")
    return Project(tmp_path / "project")


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
