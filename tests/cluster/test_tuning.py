"""`tune` on a Ray cluster: equal results, whatever dies."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.scale.nodes import LoopbackCluster, loopback_cluster
from tests.project import PATIENCE_S, Project, clone, wait_for

pytest.importorskip("ray", reason="Ray is not installed: make setup-ray")

SEARCH: dict[str, Any] = {
    "tune.trials": 4,
    "tune.max_parallel": 2,
    "tune.sampler.startup_trials": 2,
    "train.batch_size": 4,
    "model.embedding_dim": 64,
}
"""Trials of a few seconds; the sampler draws the last ones from the results of the first."""

TUNE = ("python", "-m", "stages.tune")
OUTPUTS = (
    "models/tuned/model.safetensors",
    "models/tuned/config.json",
    "reports/tune.csv",
    "metrics/tune.json",
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[LoopbackCluster]:
    """Three nodes with one CPU each, beside the head, which is the driver's node."""
    with loopback_cluster(1, 1, 1) as started:
        yield started


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project before its first search."""
    project = clone(tmp_path_factory.mktemp("tokenized") / "project")
    project.set_params(SEARCH)
    project.stage("download")
    project.stage("tokenize")
    return project


@pytest.fixture(scope="module")
def local(tokenized: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same project after a search in one process."""
    root = tmp_path_factory.mktemp("local") / "project"
    shutil.copytree(tokenized.root, root)
    project = Project(root)
    project.stage("tune", TUNE_WORKERS="1")
    return project


def _require_equal(project: Project, local: Project) -> None:
    for name in OUTPUTS:
        assert (project.root / name).read_bytes() == (local.root / name).read_bytes(), name
    runs = project.runs("tags.stage = 'tune'")
    by_trial = Counter(run.data.tags.get("tune.trial", "search") for run in runs)
    assert by_trial == Counter(["search", *map(str, range(SEARCH["tune.trials"]))])
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_killed_nodes_do_not_change_the_results(
    nodes: LoopbackCluster, before: Project, local: Project, tmp_path: Path
) -> None:
    """The trials of the first node resume from the store; there are more nodes than places for the others."""
    store = tmp_path / "store"
    process = before.start(
        *TUNE,
        log=tmp_path / "log",
        RAY_ADDRESS=nodes.address,
        RAY_CHECKPOINTS=f"file://{store}",
        CHECKPOINT_MINUTES="0.001",
    )
    for _ in range(2):
        wait_for(lambda: nodes.find_busy() and list(store.rglob("state.safetensors")), process)
        for node in nodes.find_busy()[:1]:
            nodes.kill(node)
            nodes.add(1)
    assert process.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
    assert "its node died" in (tmp_path / "log").read_text()
    _require_equal(before, local)
    assert not list(store.rglob("*.safetensors"))


def test_killed_driver_leaves_no_task_and_resumes(
    nodes: LoopbackCluster, before: Project, local: Project
) -> None:
    process = before.start(*TUNE, RAY_ADDRESS=nodes.address)
    wait_for(nodes.find_busy, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)
    _require_idle(nodes)
    before.stage("tune", RAY_ADDRESS=nodes.address)
    _require_equal(before, local)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_driver_ends_its_tasks_and_runs(
    nodes: LoopbackCluster, before: Project, sign: signal.Signals, tmp_path: Path
) -> None:
    process = before.start(*TUNE, log=tmp_path / "log", RAY_ADDRESS=nodes.address)
    wait_for(nodes.find_busy, process)
    os.killpg(process.pid, sign)
    assert process.wait(PATIENCE_S) == 130, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert {run.info.status for run in before.runs()} == {"KILLED"}
    _require_idle(nodes)


def _require_idle(nodes: LoopbackCluster) -> None:
    deadline = time.monotonic() + 30
    while nodes.find_busy():
        assert time.monotonic() < deadline, "a task outlives its driver"


def test_workers_and_a_cluster_at_once_are_refused(before: Project) -> None:
    output = before.stage("tune", status=2, TUNE_WORKERS="2", RAY_ADDRESS="127.0.0.1:1").stderr
    assert "TUNE_WORKERS and RAY_ADDRESS are both set" in output
    output = before.stage("tune", status=2, RAY_ADDRESS="127.0.0.1:1").stderr
    assert "nothing listens at 127.0.0.1:1" in output
    assert [path.name for path in (before.root / "mlruns").iterdir()] == [".gitkeep"]
