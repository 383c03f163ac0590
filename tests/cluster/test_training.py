"""Ranks on the nodes of a Ray cluster train what they train on one machine, also if a node dies."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from bench.scale.nodes import LoopbackCluster, loopback_cluster
from sentiment.cluster.connection import Cluster, connect
from sentiment.cluster.resources import Needs
from sentiment.errors import TrainingDivergedError, UserError
from sentiment.params.train import TrainParams
from sentiment.settings import Settings, set_environment
from sentiment.training.checkpoint import STATE_FILE, Checkpoint, open_checkpoint
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.launch import start_ranks
from sentiment.training.loop import TrainingResult
from tests.model.small_model import model_params
from tests.training import rank_cases
from tests.training.test_loop import TRAIN

pytest.importorskip("ray", reason="Ray is not installed: make setup-ray")

ONE_CPU = Needs(cpus=1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[LoopbackCluster]:
    """A cluster whose head node runs no tasks; `workers` has the other nodes."""
    with loopback_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def workers(nodes: LoopbackCluster) -> list[Any]:
    """Two nodes with one CPU each."""
    return [nodes.add(1), nodes.add(1)]


@pytest.fixture
def cluster(nodes: LoopbackCluster, workers: list[Any]) -> Iterator[Cluster]:
    with connect(ONE_CPU, "a rank", settings=Settings(ray_address=nodes.address)) as connected:
        yield connected


@pytest.fixture(scope="module")
def on_one_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that two ranks have trained on one machine."""
    folder = tmp_path_factory.mktemp("trained")
    with set_environment(**{rank_cases.FOLDER: str(folder), rank_cases.CASES: "long"}):
        start_ranks("tests.training.rank_cases", rank_cases.RANKS)
    return folder / "long.safetensors"


def _fit(
    cluster: Cluster,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
    **changes: object,
) -> TrainingResult:
    from sentiment.training.on_ray import fit_on_ray

    params = TrainParams.model_validate({**TRAIN, "ranks": 2, **rank_cases.ADAMW, **changes})
    model = model_params(dropout=rank_cases.DROPOUT)
    reviews = rank_cases.build_reviews()
    return fit_on_ray(cluster, ONE_CPU, 1e-9, model, params, reviews, on_epoch, checkpoint)


def _require_equal(result: TrainingResult, expected: Path) -> None:
    weights = load_file(expected)
    assert weights.keys() == result.model.state_dict().keys()
    for name, weight in result.model.state_dict().items():
        assert weight.equal(weights[name]), name


def test_node_that_dies_does_not_change_the_result(
    nodes: LoopbackCluster,
    workers: list[Any],
    cluster: Cluster,
    on_one_machine: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []

    def on_epoch(epoch: EpochMetrics) -> None:
        seen.append(epoch.epoch)
        assert (tmp_path / "key" / STATE_FILE).exists()
        if epoch.epoch == 1:
            (raylet,) = workers[-1].all_processes["raylet"]
            for process in psutil.Process(raylet.process.pid).children(recursive=True):
                process.kill()
            nodes.kill(workers.pop())
            workers.append(nodes.add(1))

    with open_checkpoint(tmp_path, "key", 2) as checkpoint:
        result = _fit(cluster, on_epoch, checkpoint, **rank_cases.LONG)
    _require_equal(result, on_one_machine)
    assert seen == list(range(1, rank_cases.LONG["epochs"] + 1))
    assert "start 1 of 4 ended, the last checkpoint remains" in caplog.text


def test_diverging_training_stops_with_the_error_of_the_ranks(cluster: Cluster) -> None:
    optimizer = {**rank_cases.SGD, "learning_rate": 1e38}
    with pytest.raises(TrainingDivergedError, match=r"epoch 1, step \d of 10: the (loss|gradient)"):
        _fit(cluster, optimizer=optimizer, clip={"kind": "none"})


def test_more_ranks_than_places_are_an_error(cluster: Cluster) -> None:
    with pytest.raises(UserError, match=r"train.ranks is 9, but \d ranks with 1 CPU each fit"):
        _fit(cluster, ranks=9)
